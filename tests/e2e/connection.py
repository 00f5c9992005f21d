# SPDX-License-Identifier: Apache-2.0
"""Where the cluster and its object store are: the local cluster's, or the user's own."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries
from tests.e2e.kubectl import Kubectl, KubectlError

LOCAL = Path(".cluster")
KIND_CONTEXT = "kind-r1reward"
BUCKET = "r1reward"
"""Named in the demo's job."""
_NEEDED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")


@dataclass(frozen=True)
class Connection:
    """A cluster and an object store that its pods reach.

    Attributes:
        kubectl: against the cluster.
        storage: AWS_* variables and R1_BUCKET.
    """

    kubectl: Kubectl
    storage: Mapping[str, str]


def connect() -> Connection:
    """The local cluster's connection; with CLUSTER=kind that of the kind cluster, with
    CLUSTER=current the user's own.

    Raises:
        RuntimeError: naming what is missing.
    """
    which = os.environ.get("CLUSTER", "local")
    if which != "local":
        return _foreign(KIND_CONTEXT if which == "kind" else None)
    kubeconfig = LOCAL / "kubeconfig"
    if not kubeconfig.exists():
        raise RuntimeError("there is no local cluster: run `make cluster-up`")
    lines = (LOCAL / "s3.env").read_text().splitlines()
    storage = dict(line.split("=", 1) for line in lines if "=" in line)
    return Connection(Kubectl(str(binaries.kubectl()), kubeconfig), storage)


def _foreign(context: str | None) -> Connection:
    missing = [n for n in _NEEDED if not os.environ.get(n)]
    if missing:
        raise RuntimeError(
            f"with your own cluster, set {', '.join(missing)}: the S3 store that its pods reach, "
            f"with a bucket {BUCKET}"
        )
    kubectl = Kubectl(shutil.which("kubectl") or str(binaries.kubectl()), None, context)
    try:
        kubectl.run("get", "crd", "pytorchjobs.kubeflow.org")
    except KubectlError as error:
        raise RuntimeError(f"{error}\nIs the Kubeflow training operator installed?") from error
    return Connection(kubectl, {n: os.environ[n] for n in _NEEDED} | {"R1_BUCKET": BUCKET})
