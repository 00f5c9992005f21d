# SPDX-License-Identifier: Apache-2.0
"""What holds for every pod, whatever its stage and role."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1reward_api.constants import Role
from r1reward_api.resource.common import ResourceRequirements
from r1reward_operator.plan.builders.resources import container_resources

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def role_of(labels: dict[str, str]) -> str:
    """The role, or `serving` for what is nobody's attempt."""
    return labels.get("r1reward.dev/role") or labels["app.kubernetes.io/component"]


def templates(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Role and template of every pod in a golden file."""
    for obj in json.loads(path.read_text()):
        spec = obj.get("spec", {})
        template = spec.get("template")
        if obj["kind"] == "PyTorchJob":
            template = spec["pytorchReplicaSpecs"]["Worker"]["template"]
        if template is not None:
            yield role_of(obj["metadata"]["labels"]), template


def containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


ALL = [(p.stem, role, t) for p in GOLDEN for role, t in templates(p)]
IDS = [f"{name}-{role}" for name, role, _ in ALL]


@pytest.mark.parametrize(("name", "role", "template"), ALL, ids=IDS)
def test_a_pod_meets_pod_security_restricted_and_more(
    name: str, role: str, template: dict[str, Any]
):
    spec = template["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert role_of(template["metadata"]["labels"]) == role
    allowed = {"name", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
    assert all(v.keys() <= allowed for v in spec["volumes"])
    for container in containers(template):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        resources = container["resources"]
        assert "memory" in resources["limits"]
        assert {"cpu", "memory"} <= resources["requests"].keys() | resources["limits"].keys()
        names = [e["name"] for e in container["env"]]
        assert len(names) == len(set(names))
        assert {"name": "HOME", "value": "/tmp"} in container["env"]


STORAGE = {"s3"}
SECRETS_BY_CONTAINER = {
    ("prepare", "r1"): STORAGE,
    ("annotate", "r1"): {*STORAGE, "teacher"},
    ("trainer", "pytorch"): STORAGE,
    ("evaluate", "r1"): STORAGE,
    ("rollout", "fetch-model"): STORAGE,
    ("rollout", "r1"): set(),
    ("judge", "fetch-model"): STORAGE,
    ("judge", "r1"): set(),
    ("verifier", "r1"): set(),
    ("serving", "fetch-model"): STORAGE,
    ("serving", "vllm"): set(),
    ("serving", "front"): set(),
}
"""With spec.storage.secretRef and a judge of the job's own. The attempt's token is not counted."""


def secrets_of(container: dict[str, Any]) -> set[str]:
    found = set()
    for variable in container["env"]:
        ref = variable.get("valueFrom", {}).get("secretKeyRef")
        if ref is not None:
            found.add(ref["name"])
    return {name for name in found if "-token-" not in name}


@pytest.mark.parametrize(("name", "role", "template"), ALL, ids=IDS)
def test_a_container_sees_its_own_secrets_and_no_other(
    name: str, role: str, template: dict[str, Any]
):
    for container in containers(template):
        expected = SECRETS_BY_CONTAINER[(role, container["name"])]
        if name.startswith("identity"):
            own = {"prepare": {"hub"}, "verifier": {"judge"}}.get(role, set())
            expected = own | (expected - STORAGE)
        assert secrets_of(container) == expected


@pytest.mark.parametrize(("name", "role", "template"), ALL, ids=IDS)
def test_only_workers_may_report_progress_and_only_stages_with_servers_have_a_token(
    name: str, role: str, template: dict[str, Any]
):
    mounted = {m["name"] for c in template["spec"]["containers"] for m in c["volumeMounts"]}
    workers = {"prepare", "annotate", "trainer", "evaluate"}
    assert ("progress-token" in mounted) == (role in workers)
    served = name.endswith(("-rl", "-evaluate"))
    assert ("attempt-token" in mounted) == (served and role != "judge")
    for container in template["spec"].get("initContainers", []):
        mounts = {m["name"] for m in container["volumeMounts"]}
        assert not mounts & {"progress-token", "attempt-token"}


def test_resources_are_given_where_the_runtime_gives_none():
    assert container_resources(Role.VERIFIER, ResourceRequirements()) == {
        "requests": {"cpu": "250m", "memory": "512Mi"},
        "limits": {"cpu": "1", "memory": "2Gi"},
    }


def test_given_resources_stay_and_memory_always_has_a_limit():
    given = ResourceRequirements(requests={"cpu": 2, "memory": "3Gi"}, limits={"amd.com/gpu": 1})
    assert container_resources(Role.TRAINER, given) == {
        "requests": {"cpu": "2", "memory": "3Gi"},
        "limits": {"amd.com/gpu": "1", "memory": "3Gi"},
    }
    only_limits = ResourceRequirements(limits={"cpu": "4", "memory": "8Gi"})
    assert container_resources(Role.TRAINER, only_limits) == {
        "requests": {},
        "limits": {"cpu": "4", "memory": "8Gi"},
    }
