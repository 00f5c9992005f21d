# SPDX-License-Identifier: Apache-2.0
"""What must hold of the example job's objects, whatever else changes in them.

test_golden.py holds the files to what the plan makes; this holds the files to what the
README, docs/security.md and the example's runtime promise.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from r1reward_api.constants import Stage
from tests.unit.plan.simulation import Simulation, example_spec

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(path.stem for stage in Stage for path in FOLDER.glob(f"*-{stage}.json"))
GPU = "nvidia.com/gpu"
S3 = {f"s3/{name}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
                                "AWS_ENDPOINT_URL", "AWS_REGION", "ca.crt")}  # fmt: skip
S3_CA = {"s3/ca.crt"}


class Template(NamedTuple):
    """A pod template: where it is, how many pods it makes, and it."""

    stage: str
    role: str
    pods: int
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Init containers and containers."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def objects(file: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{file}.json").read_text())


def example() -> list[dict[str, Any]]:
    """All objects of the example job with the example runtime."""
    return [o for stage in Stage for o in objects(f"secret-{stage}")]


def templates(made: list[dict[str, Any]]) -> Iterator[Template]:
    for item in made:
        match item["kind"]:
            case "Job":
                pods, template = 1, item["spec"]["template"]
            case "Deployment":
                pods, template = item["spec"]["replicas"], item["spec"]["template"]
            case "PyTorchJob":
                workers = item["spec"]["pytorchReplicaSpecs"]["Worker"]
                pods, template = workers["replicas"], workers["template"]
            case _:
                continue
        labels = template["metadata"]["labels"]
        yield Template(
            labels["r1reward.dev/stage"], labels["r1reward.dev/role"], pods, template["spec"]
        )


def secrets_of(template: Template, container: dict[str, Any]) -> set[str]:
    """Every `secret/key` that a container can read."""
    read = set()
    for variable in container["env"]:
        if ref := variable.get("valueFrom", {}).get("secretKeyRef"):
            read.add(f"{ref['name']}/{ref['key']}")
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    for volume in template.spec["volumes"]:
        if volume["name"] not in mounted:
            continue
        sources = [(v["secret"], v["secret"]["secretName"]) for v in [volume] if "secret" in v]
        for source in volume.get("projected", {}).get("sources", []):
            if "secret" in source:
                sources.append((source["secret"], source["secret"]["name"]))
        read |= {f"{name}/{item['key']}" for secret, name in sources for item in secret["items"]}
    return read


def find(kind: str, name: str) -> dict[str, Any]:
    (found,) = [o for o in example() if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def test_gpus_are_asked_for_by_trainer_rollout_and_judge_alone():
    gpus = {
        (t.stage, t.role, c["name"]): (t.pods, c["resources"]["limits"][GPU])
        for t in templates(example())
        for c in t.containers
        if GPU in {**c["resources"]["requests"], **c["resources"]["limits"]}
    }
    assert gpus == {
        ("sft", "trainer", "pytorch"): (1, "4"),
        ("rl", "trainer", "pytorch"): (1, "4"),
        ("rl", "rollout", "r1"): (3, "1"),
        ("rl", "judge", "r1"): (1, "1"),
        ("evaluate", "rollout", "r1"): (1, "1"),
    }


def test_pods_without_gpus_stay_off_the_gpu_nodes():
    on_gpu_nodes = {t.role for t in templates(example()) if t.spec.get("nodeSelector")}
    tolerant = {t.role for t in templates(example()) if t.spec.get("tolerations")}
    assert on_gpu_nodes == tolerant == {"trainer", "rollout", "judge"}


def test_each_trainer_process_has_its_gpu():
    for stage in (Stage.SFT, Stage.RL):
        job = find("PyTorchJob", f"vlm-{stage}-1")["spec"]
        (container,) = job["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
        assert job["nprocPerNode"] == container["resources"]["limits"][GPU]


def test_each_container_can_read_its_own_secrets_and_no_others():
    read = {
        (t.stage, t.role, c["name"]): secrets_of(t, c)
        for t in templates(example())
        for c in t.containers
    }
    assert read == {
        ("prepare", "prepare", "r1"): S3,
        ("annotate", "annotate", "r1"): S3 | {"teacher/api-key"},
        ("sft", "trainer", "pytorch"): S3,
        ("rl", "trainer", "pytorch"): S3 | {"vlm-rl-1-token-job-uid/token"},
        ("rl", "rollout", "fetch-model"): S3,
        ("rl", "rollout", "r1"): S3_CA | {"vlm-rl-1-token-job-uid/token"},
        ("rl", "judge", "fetch-model"): S3,
        ("rl", "judge", "r1"): S3_CA | {"vlm-rl-1-token-job-uid/token"},
        ("rl", "verifier", "r1"): {"vlm-rl-1-token-job-uid/token"},
        ("evaluate", "rollout", "fetch-model"): S3,
        ("evaluate", "rollout", "r1"): S3_CA | {"vlm-evaluate-1-token-job-uid/token"},
        ("evaluate", "evaluate", "r1"): S3 | {"vlm-evaluate-1-token-job-uid/token"},
    }


@pytest.mark.parametrize("file", FILES)
def test_no_object_holds_a_secrets_value(file: str):
    assert "Secret" not in {o["kind"] for o in objects(file)}
    for template in templates(objects(file)):
        for container in template.containers:
            plain = {e["name"] for e in container["env"] if "value" in e}
            assert not {n for n in plain if n.endswith(("_KEY", "_TOKEN", "_ACCESS_KEY_ID"))}


@pytest.mark.parametrize("file", FILES)
def test_every_container_is_as_restricted_as_pod_security_asks(file: str):
    for template in templates(objects(file)):
        spec = template.spec
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        sources = {key for volume in spec["volumes"] for key in volume if key != "name"}
        assert sources <= {"emptyDir", "projected", "secret", "persistentVolumeClaim"}
        for container in template.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }


def test_the_rollout_servers_serve_the_runtimes_lengths_and_the_datas_pixels():
    for stage in (Stage.RL, Stage.EVALUATE):
        (server,) = [t for t in templates(example()) if (t.stage, t.role) == (stage, "rollout")]
        (container,) = server.spec["containers"]
        assert container["command"] == ["python", "-m", "r1reward_rollout"]
        config = find("ConfigMap", f"vlm-{stage}-1-config")["data"]["rollout.json"]
        assert json.loads(config) == {
            "model": "/models/base",
            "dtype": "bfloat16",
            "maxModelLen": 24576,
            "maxImages": 1,
            "minPixels": 3136,
            "maxPixels": 501760,
            "kvCacheBytes": 0,
            "tensorParallelSize": 1,
            "seed": 0,
            "port": 8000,
            "extraArgs": [],
        }


def test_the_judge_is_stock_vllm_on_the_judges_own_weights():
    (judge,) = [t for t in templates(example()) if t.role == "judge"]
    (server,), (fetch,) = judge.spec["containers"], judge.spec["initContainers"]
    assert " ".join(server["command"]) == (
        "python -m r1reward_rollout.keep "
        "python -m vllm.entrypoints.openai.api_server --host 0.0.0.0 --port 8000 "
        "--model /models/base --served-model-name judge --dtype bfloat16 "
        "--max-model-len auto --tensor-parallel-size 1"
    )
    uri = {"name": "R1_FETCH_URI", "value": "hf://Qwen/Qwen2.5-VL-7B-Instruct"}
    assert uri in fetch["env"]


@pytest.mark.parametrize(
    ("judge", "holders"), [("hf://a/gated", [("judge", "fetch-model")]), ("s3://models/judge", [])]
)
def test_a_gated_judge_is_fetched_with_the_models_token(judge: str, holders: list[tuple[str, str]]):
    spec = example_spec(
        model={"uri": "hf://a/gated", "tokenSecretRef": {"name": "hub", "key": "token"}}
    )
    spec["rl"]["verifier"]["judge"] = {"model": judge}
    simulation = Simulation(spec)
    simulation.walk_to(Stage.RL)
    assert holders == [
        (template.role, container["name"])
        for template in templates([*simulation.children.values()])
        for container in template.containers
        if template.stage == Stage.RL and "hub/token" in secrets_of(template, container)
    ]


@pytest.mark.parametrize("file", FILES)
def test_services_belong_to_one_attempt_and_select_its_pods_alone(file: str):
    made = objects(file)
    stage = file.rpartition("-")[2]
    attempt = {
        "r1reward.dev/job-uid": "job-uid",
        "r1reward.dev/stage": stage,
        "r1reward.dev/attempt": "1",
    }
    for item in made:
        metadata = item["metadata"]
        assert metadata["name"].startswith(f"vlm-{stage}-1"), "named after its attempt"
        assert attempt.items() <= metadata["labels"].items()
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == (
            "R1RewardJob",
            "job-uid",
            True,
        )
    for service in (o for o in made if o["kind"] == "Service"):
        role = service["metadata"]["labels"]["r1reward.dev/role"]
        selector = {**attempt, "r1reward.dev/role": role}
        assert service["spec"]["selector"] == selector
        (deployment,) = [
            o for o in made
            if o["kind"] == "Deployment" and o["metadata"]["name"] == service["metadata"]["name"]
        ]  # fmt: skip
        assert deployment["spec"]["selector"]["matchLabels"] == selector
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_only_rl_and_evaluate_have_services():
    services = {
        stage: sorted(o["metadata"]["name"] for o in objects(f"secret-{stage}")
                      if o["kind"] == "Service")
        for stage in Stage
    }  # fmt: skip
    assert services == {
        Stage.PREPARE: [],
        Stage.ANNOTATE: [],
        Stage.SFT: [],
        Stage.RL: ["vlm-rl-1-judge", "vlm-rl-1-rollout", "vlm-rl-1-verifier"],
        Stage.EVALUATE: ["vlm-evaluate-1-rollout"],
    }
