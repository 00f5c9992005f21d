# SPDX-License-Identifier: Apache-2.0
"""The custom resources that the operator works with."""

import json
from collections.abc import Iterable
from pathlib import Path

from tests.cluster import versions
from tests.cluster.apiserver import Kubernetes
from tests.cluster.binaries import manifests
from tests.cluster.layout import REPOSITORY
from tests.cluster.processes import wait_until


def own() -> list[Path]:
    """The CRDs of this project."""
    return sorted((REPOSITORY / "manifests" / "crd").glob("r1reward.dev_*.yaml"))


def pytorchjob() -> Path:
    """The CRD of PyTorchJob as the training operator's module carries it."""
    return manifests(versions.TRAINING_OPERATOR) / "base/crds/kubeflow.org_pytorchjobs.yaml"


def apply(kubernetes: Kubernetes, files: Iterable[Path]) -> None:
    """Applies CRDs and waits until the API server serves them."""
    names = [argument for path in files for argument in ("-f", str(path))]
    kubernetes.kubectl("apply", "--server-side", "--force-conflicts", *names)
    # Not `kubectl wait`: that fails on a CRD so new that it has no conditions at all.
    wait_until("CRDs are served", lambda: _established(kubernetes, names), 60.0, lambda: None)


def _established(kubernetes: Kubernetes, names: list[str]) -> bool:
    found = json.loads(kubernetes.kubectl("get", "-o", "json", *names))
    return all(
        any(
            (c["type"], c["status"]) == ("Established", "True")
            for c in crd.get("status", {}).get("conditions") or ()
        )
        for crd in found.get("items", [found])
    )
