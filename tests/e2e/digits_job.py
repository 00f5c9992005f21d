# SPDX-License-Identifier: Apache-2.0
"""The digits example on a cluster: operator, runtime, teacher, data, and the job itself."""

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.kubectl import Kubectl

MANIFESTS = Path(__file__).parent / "manifests"
NAMESPACE = "r1reward-demo"
SYSTEM_NAMESPACE = "r1reward-system"
_STORAGE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")


def load(path: str) -> dict[str, Any]:
    """A manifest of this folder with one object."""
    return yaml.safe_load((MANIFESTS / path).read_text())


def digits_job(name: str = "digits", **sections: Mapping[str, Any] | None) -> dict[str, Any]:
    """The demo's R1RewardJob with other values merged into its spec.

    Args:
        name: of the job.
        sections: by spec field; a mapping is merged at any depth, None removes the field.
    """
    job = load("digits/job.yaml")
    job["metadata"]["name"] = name
    job["spec"] = merged(job["spec"], sections)
    return job


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` merged in at any depth; None removes a field."""
    result = copy.deepcopy(dict(base))
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def stages_of(job: Mapping[str, Any]) -> list[str]:
    """The stages that a job runs, in order."""
    spec = job["spec"]
    optional = [s for s in ("annotate", "sft", "rl") if spec.get(s) is not None]
    return ["prepare", *optional, "evaluate"]


def install_operator(kubectl: Kubectl) -> None:
    """Applies CRDs, RBAC and operator, and waits until the operator is available."""
    kubectl.run("apply", "--server-side", "--force-conflicts", "-k", str(MANIFESTS / "operator"))
    wait_for_operator(kubectl)


def wait_for_operator(kubectl: Kubectl) -> None:
    """Waits until the operator is available."""
    kubectl.run(
        "-n", SYSTEM_NAMESPACE, "rollout", "status", "deployment/r1reward-operator",
        "--timeout=180s",
    )  # fmt: skip


def storage_secret(storage: Mapping[str, str], name: str = "s3") -> dict[str, Any]:
    """The Secret that `spec.storage.secretRef` names."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {key: storage[key] for key in _STORAGE_KEYS},
    }


def teacher_key(storage: Mapping[str, str]) -> str:
    """The teacher's API key: of this store alone, and the same whenever it is asked for."""
    return hashlib.sha256(f"teacher {storage['AWS_SECRET_ACCESS_KEY']}".encode()).hexdigest()[:40]


def teacher_secret(storage: Mapping[str, str]) -> dict[str, Any]:
    """The Secret that `apiKeySecretRef` of teacher and judge names."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "teacher"},
        "stringData": {"api-key": teacher_key(storage)},
    }


def make_namespace(kubectl: Kubectl, storage: Mapping[str, str], namespace: str) -> None:
    """A namespace that enforces Pod Security restricted, with the Secrets of S3 and teacher,
    and the runtime."""
    where = load("digits/namespace.yaml")
    where["metadata"]["name"] = namespace
    kubectl.apply(where, load("digits/runtime.yaml"))
    kubectl.apply(storage_secret(storage), teacher_secret(storage), namespace=namespace)


def prepare_namespace(kubectl: Kubectl, storage: Mapping[str, str]) -> None:
    """The demo's namespace with its teacher; waits until the teacher answers."""
    make_namespace(kubectl, storage, NAMESPACE)
    kubectl.run("-n", NAMESPACE, "apply", "-f", str(MANIFESTS / "digits/teacher.yaml"))
    kubectl.run("-n", NAMESPACE, "rollout", "status", "deployment/digits-teacher", "--timeout=180s")
