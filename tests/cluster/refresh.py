# SPDX-License-Identifier: Apache-2.0
"""Deployments follow images whose content changed under the same name."""

import json
from collections.abc import Collection

from tests.cluster.apiserver import Kubernetes


def restart_changed(kubernetes: Kubernetes, changed: Collection[str]) -> None:
    """Restarts the Deployments that run one of the images.

    Those of a job's attempt are left alone: an attempt is frozen, and its pods end with it.
    """
    if not changed:
        return
    for deployment in json.loads(kubernetes.kubectl("get", "deployments", "-A", "-o", "json"))[
        "items"
    ]:
        metadata = deployment["metadata"]
        used = {c["image"] for c in deployment["spec"]["template"]["spec"]["containers"]}
        if used & set(changed) and not metadata.get("ownerReferences"):
            kubernetes.kubectl(
                "-n", metadata["namespace"], "rollout", "restart", f"deployment/{metadata['name']}"
            )
