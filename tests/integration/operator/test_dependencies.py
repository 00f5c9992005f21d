# SPDX-License-Identifier: Apache-2.0
"""Jobs that are applied before what they need: they wait, say for what, and go on by themselves."""

from collections.abc import Iterator

import pytest

from r1reward_api.constants import Stage
from r1reward_operator.kube import reflector
from r1reward_operator.kube.backoff import Backoff
from r1reward_operator.kube.client import KubeClient, Resource
from r1reward_operator.kube.errors import NotFound
from r1reward_operator.kube.resources import DEPLOYMENTS, JOBS, PYTORCHJOBS
from r1reward_operator.plan import blocked, running, stage
from r1reward_operator.resources import CHILDREN
from tests.cluster import crds
from tests.cluster.apiserver import Kubernetes
from tests.cluster.processes import wait_until
from tests.integration.operator.world import World

CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
PYTORCHJOB_CRD = "pytorchjobs.kubeflow.org"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute between two looks, and a minute's patience, are a second each."""
    monkeypatch.setattr(stage, "_POLL_SECONDS", 1.0)
    monkeypatch.setattr(running, "RUNNING_POLL_SECONDS", 1.0)
    monkeypatch.setattr(reflector, "_BACKOFF", Backoff(base=0.5, cap=1.0))
    monkeypatch.setattr(blocked, "NO_PODS_SECONDS", 1.0)


@pytest.fixture
def no_training_operator(apiserver: Kubernetes, client: KubeClient) -> Iterator[None]:
    """An API server that does not know PyTorchJob, until a test or its end brings it back."""
    apiserver.kubectl("delete", "crd", PYTORCHJOB_CRD, "--wait")
    yield
    install_training_operator(apiserver)
    wait_until("PyTorchJobs are served", lambda: is_served(client, PYTORCHJOBS), 60.0, lambda: None)


@pytest.fixture
def early(no_training_operator: None, world: World) -> World:
    """A world whose job `early` has come before its runtime and the training operator."""
    runtime = {"kind": "R1RewardRuntime", "name": "ours"}
    world.create("early", annotate=None, sft=None, runtimeRef=runtime)
    wait_blocked(world, "early", "Dependency")
    return world


def install_training_operator(apiserver: Kubernetes) -> None:
    crds.apply(apiserver, [crds.pytorchjob()])


def is_served(client: KubeClient, resource: Resource) -> bool:
    try:
        client.list(resource)
    except NotFound:
        return False
    return True


def wait_blocked(world: World, name: str, reason: str) -> str:
    """Waits for a reason of Blocked; the job waits, and has not failed. Returns the message."""

    def look() -> str | None:
        found = world.condition(name, "Blocked")
        return found["message"] if found.get("reason") == reason else None

    message = world.eventually(f"{name} blocked by {reason}", look)
    assert world.condition(name, "Failed")["status"] == "False"
    assert world.condition(name, "Stalled")["status"] == "False"
    assert world.condition(name, "Reconciling")["status"] == "True"
    return message


def wait_free(world: World, name: str) -> None:
    world.eventually(
        f"{name} not blocked", lambda: world.condition(name, "Blocked")["status"] == "False"
    )


def children(world: World) -> list[str]:
    """Names of all that the operator has made, where there is no PyTorchJob."""
    known = [r for r in CHILDREN.values() if r is not PYTORCHJOBS]
    found = [world.client.list(r, world.namespace)["items"] for r in known]
    return [item["metadata"]["name"] for items in found for item in items]


def waiting_container(reason: str, message: str) -> dict[str, object]:
    return {
        "name": "r1", "image": "x", "imageID": "", "ready": False, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
    }  # fmt: skip


def test_what_a_job_needs_may_come_after_it_one_by_one(early: World, apiserver: Kubernetes):
    message = early.condition("early", "Blocked")["message"]
    assert message == "R1RewardRuntime ours does not exist; create it, or ask for it"
    assert children(early) == []
    assert "startTime" not in early.job("early")["status"], "its spec may still change"

    early.copy_runtime("ours")
    (pod,) = early.run("early", Stage.PREPARE)
    wait_free(early, "early")
    missing = waiting_container("CreateContainerConfigError", 'secret "s3" not found')
    early.pod_status(pod, {"phase": "Pending", "containerStatuses": [missing]})
    message = wait_blocked(early, "early", "Dependency")
    assert message == (
        f'pod {pod}, container r1 waits: secret "s3" not found; create it in the job\'s namespace'
    )
    early.pod_status(pod, {"phase": "Running", "containerStatuses": []})
    wait_free(early, "early")
    prepared = early.stage("early", Stage.PREPARE)
    assert (prepared["attempt"], prepared["programFailures"]) == (1, 0)

    early.succeed("early", Stage.PREPARE)
    message = wait_blocked(early, "early", "Dependency")
    assert message == (
        "the API server does not know PyTorchJob: install the Kubeflow training operator"
    )
    assert early.client.list(DEPLOYMENTS, early.namespace)["items"] == [], "no GPU is held"
    install_training_operator(apiserver)
    early.serve("early", Stage.RL)
    assert len(early.run("early", Stage.RL)) == 2
    wait_free(early, "early")
    assert early.wait_phase("early", Stage.RL, "Running", 1)["infrastructureFailures"] == 0


def test_the_order_in_which_they_come_does_not_matter(early: World, apiserver: Kubernetes):
    install_training_operator(apiserver)
    early.settle()
    assert "runtime" in wait_blocked(early, "early", "Dependency").lower()
    early.copy_runtime("ours")
    early.run("early", Stage.PREPARE)
    early.succeed("early", Stage.PREPARE)
    early.serve("early", Stage.RL)
    early.run("early", Stage.RL)
    early.wait_phase("early", Stage.RL, "Running", 1)
    wait_free(early, "early")


def test_a_pytorchjob_without_pods_is_named_with_what_may_be_the_cause_until_it_has_them(
    world: World,
):
    world.create("idle", annotate=None, sft=None)
    world.run("idle", Stage.PREPARE)
    world.succeed("idle", Stage.PREPARE)
    world.serve("idle", Stage.RL)
    world.eventually("the trainer", lambda: world.get(PYTORCHJOBS, "idle-rl-1"))
    message = wait_blocked(world, "idle", "Quota")
    assert message == (
        "PyTorchJob idle-rl-1 lacks pods: a ResourceQuota, a LimitRange or an admission policy "
        "refuses them, or a ServiceAccount, PriorityClass or RuntimeClass that they name does not "
        "exist; see `kubectl describe pytorchjob idle-rl-1`. When that shows no events, the "
        "training operator does not run"
    )
    world.run("idle", Stage.RL)
    world.wait_phase("idle", Stage.RL, "Running", 1)
    wait_free(world, "idle")


def test_what_a_child_may_not_have_ends_the_job_at_once_with_the_api_servers_words(world: World):
    resources = {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}
    world.create("wrong", overrides={"roles": {"prepare": {"resources": resources}}})
    world.wait_phase("wrong", Stage.PREPARE, "Failed", 1)
    failed = world.condition("wrong", "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "InvalidSpec")
    assert "Job wrong-prepare-1 is not valid" in failed["message"]
    assert "must be less than or equal to memory limit" in failed["message"]
    assert "correct the runtime or the job" in failed["message"]
    assert world.get(JOBS, "wrong-prepare-1") is None
