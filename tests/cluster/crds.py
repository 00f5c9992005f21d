# SPDX-License-Identifier: Apache-2.0
"""The custom resources that the operator works with."""

from collections.abc import Iterable
from pathlib import Path

from tests.cluster import versions
from tests.cluster.apiserver import Kubernetes
from tests.cluster.binaries import manifests
from tests.cluster.layout import REPOSITORY


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
    # Not `condition=Established`: that is an error as long as there are no conditions at all.
    established = '{.status.conditions[?(@.type=="Established")].status}=True'
    kubernetes.kubectl("wait", f"--for=jsonpath={established}", "--timeout=60s", *names)
