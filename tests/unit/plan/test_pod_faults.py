# SPDX-License-Identifier: Apache-2.0
"""What befalls pods, for every pod of every stage: a word for the cause while it lasts, and the
right party pays when it ends the attempt."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_operator.plan import Obstacle
from r1reward_operator.plan.model import Blocked
from r1reward_operator.plan.times import format_time
from tests.unit.plan.simulation import Simulation, at_work, starting

NOTICE_SECONDS = 30.0
"""How long after a cause is there for all to see the job may stay silent about it."""
WORKER = "worker"
SERVERS = {Stage.RL: ("judge", "rollout", "verifier"), Stage.EVALUATE: ("rollout",)}
NODE = "node-7"


@dataclass(frozen=True)
class Place:
    """Where a fault strikes.

    Attributes:
        stage: the stage.
        role: `worker`, or the role of a server.
    """

    stage: Stage
    role: str

    def __str__(self) -> str:
        return f"{self.stage}-{self.role}"


WORKERS = [Place(stage, WORKER) for stage in Stage]
SERVER_PLACES = [Place(stage, role) for stage, roles in SERVERS.items() for role in roles]
PLACES = [*WORKERS, *SERVER_PLACES]


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    container = {"name": "main", "image": "r1/typo", "state": state, **more}
    return {"phase": "Pending", "containerStatuses": [container]}


def unscheduled(reason: str, message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"phase": "Pending", "conditions": [condition]}


NODE_LOST = {
    "phase": "Running",
    "conditions": [
        {"type": "Ready", "status": "False"},
        {"type": "ContainersReady", "status": "True"},
    ],
}
OOM: dict[str, Any] = {"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
CAUSES = {
    "ImagePull": (waiting("ImagePullBackOff", "r1/typo: not found"), "r1/typo: not found"),
    "Unschedulable": (
        unscheduled("Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        "3 Insufficient nvidia.com/gpu",
    ),
    "Storage": (
        unscheduled("Unschedulable", 'persistentvolumeclaim "models" not found'), '"models"',
    ),
    "Queued": (unscheduled("SchedulingGated", ""), "waits for its queue"),
    "Dependency": (
        waiting("CreateContainerConfigError", 'secret "s3" not found'), 'secret "s3" not found',
    ),
    "ContainerConfig": (
        waiting("CreateContainerConfigError", "couldn't find key AWS_REGION in Secret team-a/s3"),
        "couldn't find key AWS_REGION in Secret team-a/s3",
    ),
}  # fmt: skip
SERVER_CAUSES = {
    "CrashLoop": (waiting("CrashLoopBackOff", **OOM), "OOMKilled: raise its memory limit"),
    "NodeLost": (NODE_LOST, f"node {NODE}"),
}


def make_server(simulation: Simulation, place: Place, name: str = "server") -> str:
    deployment = simulation.children["Deployment", f"vlm-{place.stage}-1-{place.role}"]
    return simulation.make_pod(name, deployment, deployment["spec"]["template"], 0)


def pending(place: Place) -> tuple[Simulation, str]:
    """A job whose stage waits for one pod at this place."""
    simulation = starting(place.stage)
    if place.role != WORKER:
        return simulation, make_server(simulation, place)
    simulation.serve()
    worker = simulation.worker()
    assert worker is not None
    return simulation, simulation.make_pods(worker)[-1]


def suffer(simulation: Simulation, pod: str, status: dict[str, Any]) -> None:
    """A pod's status changes, and the operator is told."""
    simulation.pods[pod]["status"] = status
    simulation.pods[pod]["spec"] = {"nodeName": NODE}
    simulation.tick()


def blocked_within(simulation: Simulation, seconds: float) -> dict[str, Any]:
    """The condition Blocked once it is True. Nobody tells the operator anything meanwhile: it
    looks again when it said that it would."""
    end = simulation.now + timedelta(seconds=seconds)
    while simulation.condition("Blocked")["status"] != "True":
        after = simulation.last.requeue_after
        assert after is not None, "nobody would ever look again"
        assert after <= NOTICE_SECONDS
        assert simulation.now + timedelta(seconds=after) <= end, f"silent for {seconds} s"
        simulation.tick(after)
    return simulation.condition("Blocked")


@pytest.mark.parametrize(
    ("place", "cause"),
    [
        *((place, cause) for place in PLACES for cause in CAUSES),
        # A worker is not restarted: such a pod has ended its attempt.
        *((place, cause) for place in SERVER_PLACES for cause in SERVER_CAUSES),
    ],
    ids=str,
)
def test_a_cause_is_told_with_its_pod_while_it_lasts_and_costs_no_attempt(place: Place, cause: str):
    status, text = {**CAUSES, **SERVER_CAUSES}[cause]
    simulation, pod = pending(place)
    suffer(simulation, pod, status)
    blocked = simulation.condition("Blocked")
    assert (blocked["status"], blocked["reason"]) == ("True", cause)
    assert text in blocked["message"]
    assert f"pod {pod}" in blocked["message"]
    assert simulation.condition("Ready")["reason"] == cause
    assert simulation.condition("Failed")["status"] == "False"
    assert simulation.status["phase"] == "Blocked"

    suffer(simulation, pod, {"phase": "Running"})
    assert simulation.condition("Blocked")["reason"] == "NotBlocked"
    stage = simulation.stage(place.stage)
    costs = (stage["programFailures"], stage["infrastructureFailures"])
    assert (stage["attempt"], *costs) == (1, 0, 0)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_quota_is_told_whoever_may_not_have_its_pods(place: Place):
    simulation = starting(place.stage)
    if place.role == WORKER:
        simulation.serve()
        worker = simulation.worker()
        assert worker is not None
        # Its controller has taken it up and makes no pod: there is no condition to read.
        worker["status"] = {"startTime": format_time(simulation.now)}
        simulation.tick()
        blocked = blocked_within(simulation, NOTICE_SECONDS)
    else:
        deployment = simulation.children["Deployment", f"vlm-{place.stage}-1-{place.role}"]
        text = "pods x is forbidden: exceeded quota: team, requested: pods=1, limited: pods=0"
        refusal = {"type": "ReplicaFailure", "status": "True", "message": text}
        deployment["status"] = {"conditions": [refusal]}
        simulation.tick()
        blocked = blocked_within(simulation, 0)
        assert text in blocked["message"]
    assert blocked["reason"] == "Quota"
    if place.role == WORKER:
        simulation.run()
    else:
        simulation.serve()
    assert simulation.condition("Blocked")["status"] == "False"


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_volume_that_cannot_be_mounted_is_told_and_a_large_image_is_not_taken_for_one(
    place: Place,
):
    simulation, pod = pending(place)
    stamp = format_time(simulation.now)
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp}
    sandbox = {"type": "PodReadyToStartContainers", "status": "True"}
    creating = waiting("ContainerCreating")
    suffer(simulation, pod, {**creating, "conditions": [scheduled, sandbox]})
    simulation.tick(300)
    assert simulation.condition("Blocked")["status"] == "False"

    scheduled["lastTransitionTime"] = format_time(simulation.now)
    unmounted = {**sandbox, "status": "False"}
    suffer(simulation, pod, {**creating, "conditions": [scheduled, unmounted]})
    assert simulation.condition("Blocked")["status"] == "False"
    assert blocked_within(simulation, 60 + NOTICE_SECONDS)["reason"] == "Storage"


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_node_that_does_not_take_up_its_pod_is_told(place: Place):
    simulation, pod = pending(place)
    stamp = format_time(simulation.now)
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp}
    bound = {"phase": "Pending", "conditions": [scheduled]}
    suffer(simulation, pod, bound)
    assert simulation.condition("Blocked")["status"] == "False"
    blocked = blocked_within(simulation, NOTICE_SECONDS)
    assert blocked["reason"] == "NodeLost"
    assert f"node {NODE} has not taken up pod {pod}" in blocked["message"]
    suffer(simulation, pod, {**bound, "startTime": stamp})
    assert simulation.condition("Blocked")["status"] == "False"


@pytest.mark.parametrize("place", WORKERS, ids=str)
def test_a_worker_that_no_controller_takes_up_is_told(place: Place):
    simulation = starting(place.stage)
    simulation.serve()
    blocked = blocked_within(simulation, NOTICE_SECONDS)
    trains = place.stage in (Stage.SFT, Stage.RL)
    # Of a PyTorchJob it looks as if a quota refused its pods.
    assert blocked["reason"] == ("Quota" if trains else "Dependency")
    assert "does not run" in blocked["message"]


@pytest.mark.parametrize("place", WORKERS, ids=str)
def test_a_worker_that_is_deleted_before_it_runs_ends_its_attempt_at_once(place: Place):
    simulation, pod = pending(place)
    simulation.pods[pod]["metadata"]["deletionTimestamp"] = format_time(simulation.now)
    simulation.tick()
    stage = simulation.stage(place.stage)
    assert (stage["phase"], stage["reason"]) == ("Retrying", "PodLost")
    assert (stage["programFailures"], stage["infrastructureFailures"]) == (0, 1)
    # It is on a node that does not answer: the job says for what it waits.
    simulation.tick(30)
    assert simulation.condition("Blocked")["reason"] == "Terminating"
    assert pod in simulation.condition("Blocked")["message"]


def ended(simulation: Simulation, pod: str, code: int, **more: Any) -> None:
    simulation.end(pod, code, **more)
    simulation.tick()


def disrupted(simulation: Simulation, pod: str) -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    simulation.pods[pod]["status"]["conditions"] = [target]
    ended(simulation, pod, 1)


def deleted(simulation: Simulation, pod: str) -> None:
    del simulation.pods[pod]
    simulation.tick()


def replaced(simulation: Simulation, pod: str) -> None:
    simulation.pods[pod]["metadata"]["uid"] = "another"
    simulation.tick()


def never_gone(simulation: Simulation, pod: str) -> None:
    """It was deleted, and no kubelet confirms."""
    simulation.pods[pod]["metadata"]["deletionTimestamp"] = format_time(simulation.now)
    simulation.tick()
    assert simulation.last.requeue_after is not None
    for _ in range(5):
        simulation.tick(30)


COUNTED = {"programFailures": 1, "infrastructureFailures": 0}
NOT_COUNTED = {"programFailures": 0, "infrastructureFailures": 1}
ENDS = {
    "a pod that the kubelet evicts": (
        lambda s, p: suffer(s, p, {"phase": "Failed", "reason": "Evicted", "message": "low"}),
        "Evicted", NOT_COUNTED,
    ),
    "a pod that is drained": (disrupted, "Evicted", NOT_COUNTED),
    "a pod that somebody deletes": (deleted, "PodLost", NOT_COUNTED),
    "a pod that somebody replaces": (replaced, "PodLost", NOT_COUNTED),
    "a pod whose node is lost": (
        lambda s, p: suffer(s, p, NODE_LOST), "PodLost", NOT_COUNTED,
    ),
    "a pod that is deleted on a node that is lost": (never_gone, "PodLost", NOT_COUNTED),
    "a pod that is killed": (lambda s, p: ended(s, p, 137), "Interrupted", NOT_COUNTED),
    "storage that is away": (
        lambda s, p: ended(s, p, 75), "InfrastructureError", NOT_COUNTED,
    ),
    "more memory than the limit": (
        lambda s, p: ended(s, p, 137, reason="OOMKilled"), "OOMKilled", COUNTED,
    ),
    "a program's own failure": (lambda s, p: ended(s, p, 1), "ProgramError", COUNTED),
}  # fmt: skip


@pytest.mark.parametrize("place", WORKERS, ids=str)
@pytest.mark.parametrize("end", ENDS)
def test_the_attempt_ends_its_class_pays_and_the_next_one_goes_on_under_the_same_key(
    end: str, place: Place
):
    happen, reason, counts = ENDS[end]
    simulation = at_work(place.stage)
    key = simulation.stage(place.stage).get("key")
    pods = [n for n in simulation.pods if n.startswith(f"vlm-{place.stage}-1-")]
    happen(simulation, pods[-1])
    simulation.tick(10)  # peers that are still there have had their time to speak
    stage = simulation.stage(place.stage)
    assert stage["reason"] == reason
    assert {k: stage[k] for k in counts} == counts
    assert pods[-1] in stage["message"]
    held = simulation.names("Deployment", "Service", "Job", "PyTorchJob")
    assert not [n for n in held if n.startswith(f"vlm-{place.stage}-1")], "it still holds GPUs"

    simulation.collect()
    simulation.tick(300)
    simulation.serve()
    simulation.run()
    assert simulation.stage(place.stage).get("key") == key
    simulation.succeed(place.stage)
    stage = simulation.stage(place.stage)
    assert (stage["phase"], stage["attempt"]) == ("Succeeded", 2)
    retries = [e.message for e in simulation.events if e.reason == "StageRetrying"]
    assert len(retries) == 1
    assert retries[0].startswith(f"stage {place.stage}: attempt 1 ended: {reason}: ")


@pytest.mark.parametrize("place", WORKERS, ids=str)
@pytest.mark.parametrize(
    ("end", "limit", "reason"),
    [
        ("a program's own failure", "backoffLimit", "ProgramError"),
        ("a pod that somebody deletes", "infrastructureLimit", "InfrastructureError"),
    ],
)
def test_a_limit_ends_the_job_with_its_name_and_the_last_cause(
    end: str, limit: str, reason: str, place: Place
):
    happen, last, _ = ENDS[end]
    simulation = at_work(place.stage, policy={limit: 0})
    pods = [n for n in simulation.pods if n.startswith(f"vlm-{place.stage}-1-")]
    happen(simulation, pods[-1])
    simulation.tick(10)
    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", reason)
    assert f"policy.{limit}" in failed["message"]
    assert last in failed["message"]
    assert simulation.condition("Blocked")["status"] == "False"
    simulation.tick(60)
    assert simulation.worker() is None, "its other pods may hold GPUs"


@pytest.mark.parametrize("place", WORKERS, ids=str)
def test_what_only_the_user_can_change_ends_the_job_at_once(place: Place):
    simulation = at_work(place.stage)
    for pod in [n for n in simulation.pods if n.startswith(f"vlm-{place.stage}-1-")]:
        simulation.end(pod, 78)
    simulation.tick()
    assert simulation.condition("Failed")["reason"] == "ConfigurationError"
    assert simulation.stage(place.stage)["attempt"] == 1


def evicted(simulation: Simulation, pod: str) -> None:
    # Its last state stays to be seen after its end.
    status = waiting("ImagePullBackOff")
    suffer(simulation, pod, {**status, "phase": "Failed", "reason": "Evicted"})


def killed_once(simulation: Simulation, pod: str) -> None:
    running = {"name": "main", "state": {"running": {}}, **OOM}
    suffer(simulation, pod, {"phase": "Running", "containerStatuses": [running]})


SERVER_ENDS = {
    "evicted": evicted,
    "deleted": deleted,
    "replaced": replaced,
    "killed": killed_once,
    "lost with its node": lambda s, p: suffer(s, p, NODE_LOST),
}


@pytest.mark.parametrize("place", SERVER_PLACES, ids=str)
@pytest.mark.parametrize("end", SERVER_ENDS)
def test_a_server_of_a_stage_at_work_may_end_and_come_back_without_an_attempt(
    end: str, place: Place
):
    simulation = at_work(place.stage)
    server = make_server(simulation, place)
    suffer(simulation, server, {"phase": "Running"})
    SERVER_ENDS[end](simulation, server)
    simulation.tick(30)
    expected = "NodeLost" if end == "lost with its node" else "NotBlocked"
    assert simulation.condition("Blocked")["reason"] == expected

    successor = make_server(simulation, place, "successor")
    suffer(simulation, successor, CAUSES["Unschedulable"][0])
    simulation.pods.pop(server, None)
    simulation.tick()
    assert simulation.condition("Blocked")["reason"] == "Unschedulable"
    suffer(simulation, successor, {"phase": "Running"})
    assert simulation.condition("Blocked")["reason"] == "NotBlocked"
    stage = simulation.stage(place.stage)
    assert (stage["phase"], stage["attempt"]) == ("Running", 1)


@pytest.mark.parametrize("place", SERVER_PLACES, ids=str)
def test_a_start_that_takes_too_long_says_what_was_in_the_way(place: Place):
    simulation = starting(place.stage, policy={"startDeadlineSeconds": 600})
    suffer(simulation, make_server(simulation, place), CAUSES["ImagePull"][0])
    simulation.tick(601)
    stage = simulation.stage(place.stage)
    assert (stage["reason"], stage["infrastructureFailures"]) == ("StartDeadlineExceeded", 1)
    assert "in the way was ImagePull: pod server" in stage["message"]
    assert simulation.names("Deployment", "Service") == []


def let_go(simulation: Simulation, stuck: dict[str, Any]) -> None:
    """The garbage collector has taken all that is of no owner, but for one pod."""
    stuck["spec"] = {"nodeName": NODE}
    simulation.collect(spared=stuck["metadata"]["name"])
    assert simulation.condition("Blocked")["status"] == "False"


def deletes(simulation: Simulation, pod: dict[str, Any], grace: int) -> str:
    """Somebody deletes a pod, which has so many seconds to end."""
    gone = format_time(simulation.now + timedelta(seconds=grace))
    pod["metadata"] |= {"deletionTimestamp": gone, "deletionGracePeriodSeconds": grace}
    return gone


@pytest.mark.parametrize("place", WORKERS, ids=str)
def test_a_pod_of_an_earlier_attempt_that_does_not_go_is_named_with_its_node(place: Place):
    simulation = at_work(place.stage)
    (name, *_) = (n for n in simulation.pods if n.startswith(f"vlm-{place.stage}-1-"))
    stuck = simulation.pods[name]
    ended(simulation, name, 1)
    simulation.tick(10)
    gone = deletes(simulation, stuck, grace=120)
    let_go(simulation, stuck)
    blocked = blocked_within(simulation, NOTICE_SECONDS)
    assert blocked["reason"] == "Terminating"
    assert f"pod {name} of {place.stage}, attempt 1, on node {NODE}" in blocked["message"]
    assert gone in blocked["message"]
    assert simulation.stage(place.stage)["attempt"] == 1
    del simulation.pods[name]
    simulation.tick(300)
    assert simulation.condition("Blocked")["status"] == "False"
    assert simulation.stage(place.stage)["attempt"] == 2


def test_a_server_that_does_not_go_is_named_to_the_next_stage():
    simulation = at_work(Stage.RL)
    name = make_server(simulation, Place(Stage.RL, "rollout"))
    suffer(simulation, name, {"phase": "Running"})
    stuck = simulation.pods[name]
    simulation.succeed(Stage.RL)
    let_go(simulation, stuck)
    blocked = blocked_within(simulation, NOTICE_SECONDS)
    assert blocked["reason"] == "Terminating"
    assert f"pod {name} of rl, attempt 1, on node {NODE}" in blocked["message"]
    assert f"kubectl delete pod {name}" in blocked["message"]
    stuck["metadata"]["finalizers"] = ["team.example/keep"]
    deletes(simulation, stuck, grace=0)
    simulation.tick()
    assert "finalizers team.example/keep" in blocked_within(simulation, NOTICE_SECONDS)["message"]
    del simulation.pods[name]
    simulation.tick()
    assert simulation.condition("Blocked")["status"] == "False"
    assert simulation.stage(Stage.EVALUATE)["phase"] == "Starting"


HEALED_BY_RUNTIME = ("ImagePull", "Unschedulable", "Storage", "ContainerConfig")


def change_runtime(simulation: Simulation) -> None:
    """Other resources for every role."""
    limits = {"memory": "1Gi"}
    roles = {
        r: {**t, "resources": {"limits": limits}} for r, t in simulation.runtime["roles"].items()
    }
    simulation.runtime = {**simulation.runtime, "roles": roles}
    simulation.tick()


@pytest.mark.parametrize(
    ("place", "cause"),
    [
        *((place, cause) for place in PLACES for cause in HEALED_BY_RUNTIME),
        *((place, "CrashLoop") for place in SERVER_PLACES),
    ],
    ids=str,
)
def test_an_attempt_that_cannot_start_gives_way_to_one_under_the_corrected_runtime(
    place: Place, cause: str
):
    simulation, pod = pending(place)
    suffer(simulation, pod, {**CAUSES, **SERVER_CAUSES}[cause][0])
    assert simulation.condition("Blocked")["reason"] == cause
    change_runtime(simulation)
    stage = simulation.stage(place.stage)
    assert (stage["phase"], stage["reason"]) == ("Retrying", "RuntimeChanged")
    assert simulation.worker() is None
    assert simulation.names("Deployment", "Service") == []

    simulation.collect()
    simulation.tick(60)
    simulation.serve()
    stage = simulation.stage(place.stage)
    assert (stage["phase"], stage["attempt"]) == ("Starting", 2)
    assert stage.get("programFailures", 0) == stage.get("infrastructureFailures", 0) == 0
    assert simulation.condition("Blocked")["status"] == "False"
    simulation.run()
    simulation.succeed(place.stage)
    assert simulation.stage(place.stage)["phase"] == "Succeeded"


@pytest.mark.parametrize("stage", Stage)
def test_an_object_that_a_policy_refuses_is_built_anew_under_the_corrected_runtime(stage: Stage):
    simulation = starting(stage)
    refused = Obstacle(Blocked(Reason.ADMISSION, "images must come from the company's registry"))
    simulation.carry_out(simulation.plan(refused))
    assert simulation.condition("Blocked")["reason"] == "Admission"
    change_runtime(simulation)
    simulation.tick(60)
    assert simulation.stage(stage)["attempt"] == 2
    assert simulation.condition("Blocked")["status"] == "False"


def test_a_correction_that_corrects_nothing_costs_one_attempt_and_is_not_tried_again():
    simulation, pod = pending(Place(Stage.PREPARE, WORKER))
    suffer(simulation, pod, CAUSES["ImagePull"][0])
    change_runtime(simulation)
    simulation.collect()
    simulation.tick(60)
    worker = simulation.worker()
    assert worker is not None
    suffer(simulation, simulation.make_pods(worker)[0], CAUSES["ImagePull"][0])
    simulation.tick(86400)
    assert simulation.stage(Stage.PREPARE)["attempt"] == 2
    assert simulation.condition("Blocked")["reason"] == "ImagePull"


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_changed_runtime_touches_no_attempt_that_only_waits(place: Place):
    simulation, _ = pending(place)
    change_runtime(simulation)
    stage = simulation.stage(place.stage)
    assert (stage["phase"], stage["attempt"]) == ("Starting", 1)


@pytest.mark.parametrize("place", SERVER_PLACES, ids=str)
def test_a_changed_runtime_touches_no_attempt_at_work_though_a_server_is_in_trouble(place: Place):
    simulation = at_work(place.stage)
    suffer(simulation, make_server(simulation, place), CAUSES["ImagePull"][0])
    change_runtime(simulation)
    stage = simulation.stage(place.stage)
    assert (stage["phase"], stage["attempt"]) == ("Running", 1)
    assert simulation.condition("Blocked")["reason"] == "ImagePull"


@pytest.mark.parametrize("trouble", ["gone", "too small for the job"])
def test_a_runtime_that_does_not_fit_any_more_ends_nothing_that_waits(trouble: str):
    simulation, pod = pending(Place(Stage.RL, "rollout"))
    suffer(simulation, pod, CAUSES["Unschedulable"][0])
    if trouble == "gone":
        simulation.has_runtime = False
    else:
        simulation.spec["sft"] = {**simulation.spec["sft"], "workers": 2}
        simulation.runtime = {**simulation.runtime, "limits": {"workers": 1}}
    simulation.tick()
    stage = simulation.stage(Stage.RL)
    assert (stage["phase"], stage["attempt"]) == ("Starting", 1)
    assert simulation.condition("Blocked")["reason"] == "Unschedulable"
