# SPDX-License-Identifier: Apache-2.0
"""What befalls pods, on a real API server: some of each kind. `tests/unit/plan` has them all, for
every pod of every stage."""

from typing import Any

import pytest

from r1reward_api.constants import Stage
from r1reward_operator.kube.resources import PODS
from tests.integration.operator.world import World, rfc3339


def container(name: str, **state: Any) -> dict[str, Any]:
    image = {"name": name, "image": "r1/typo", "imageID": "", "ready": False, "restartCount": 0}
    return {**image, **state}


def waiting(name: str, reason: str, message: str, **more: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [container(name, state=state, **more)]}


def blocked(world: World, job: str, reason: str) -> str:
    """Waits until a job is blocked for a reason. Returns the message."""
    found = world.eventually(
        reason,
        lambda: (c := world.condition(job, "Blocked")).get("reason") == reason and c,
        seconds=30,
    )
    assert found["status"] == "True"
    return found["message"]


def free(world: World, job: str) -> None:
    world.eventually(
        "unblocked", lambda: world.condition(job, "Blocked").get("reason") == "NotBlocked"
    )


def test_a_worker_without_its_image_is_named_until_it_runs(world: World):
    world.create("pull")
    (pod,) = world.run("pull", Stage.PREPARE)
    world.pod_status(pod, waiting("r1", "ImagePullBackOff", "r1/typo: not found"))
    text = blocked(world, "pull", "ImagePull")
    assert f"pod {pod}, container r1: image r1/typo cannot be pulled" in text
    assert world.job("pull")["status"]["phase"] == "Blocked"
    running = container("r1", state={"running": {"startedAt": rfc3339()}})
    world.pod_status(pod, {"phase": "Running", "containerStatuses": [running]})
    free(world, "pull")
    world.succeed("pull", Stage.PREPARE)
    world.wait_phase("pull", Stage.PREPARE, "Succeeded", 1)


def test_servers_that_do_not_start_are_named_one_cause_after_the_other(world: World):
    world.create("slow", annotate=None, sft=None)
    world.run("slow", Stage.PREPARE)
    world.succeed("slow", Stage.PREPARE)
    world.serve("slow", Stage.RL)
    world.run("slow", Stage.RL)
    rollout, verifier = "slow-rl-1-rollout-0", "slow-rl-1-verifier-0"
    no_node = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
               "message": "0/1 nodes are available"}  # fmt: skip
    world.pod_status(rollout, {"conditions": [no_node]})
    assert f"no node takes pod {rollout}" in blocked(world, "slow", "Unschedulable")
    lost = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "False"},
        {"type": "ContainersReady", "status": "True"},
    ]
    world.pod_status(rollout, {"phase": "Running", "conditions": lost})
    assert f"of pod {rollout} does not answer" in blocked(world, "slow", "NodeLost")
    world.pod_status(rollout, {"conditions": [{**c, "status": "True"} for c in lost]})
    free(world, "slow")
    crash = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    world.pod_status(verifier, waiting("verifier", "CrashLoopBackOff", "", lastState=crash))
    assert "OOMKilled: raise its memory limit" in blocked(world, "slow", "CrashLoop")
    world.delete_pod(verifier)
    free(world, "slow")
    stage = world.stage("slow", Stage.RL)
    assert (stage["phase"], stage["attempt"]) == ("Running", 1)


OOM = {"exitCode": 137, "reason": "OOMKilled"}
ENDS = {
    "Evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}, 0, 1,
    ),
    "OOMKilled": (
        {"phase": "Failed",
         "containerStatuses": [container("pytorch", state={"terminated": OOM})]}, 1, 0,
    ),
    "PodLost": (None, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("reason", ENDS)
def test_a_trainer_that_ends_is_judged_and_tried_again_under_the_same_key(
    reason: str, world: World
):
    status, program, infrastructure = ENDS[reason]
    world.create("end", annotate=None, sft=None)
    world.run("end", Stage.PREPARE)
    world.succeed("end", Stage.PREPARE)
    world.serve("end", Stage.RL)
    (_, pod) = world.run("end", Stage.RL)
    key = world.wait_phase("end", Stage.RL, "Running", 1)["key"]
    if status is None:
        world.delete_pod(pod)
    else:
        world.pod_status(pod, status)
    stage = world.wait_phase("end", Stage.RL, "Retrying", 1)
    costs = (stage["programFailures"], stage["infrastructureFailures"])
    assert (stage["reason"], *costs) == (reason, program, infrastructure)
    assert f"pod {pod}" in stage["message"]
    for name in world.pods("end", Stage.RL, 1):
        world.delete_pod(name)
    world.clock.advance(600)
    world.settle()
    world.wait_phase("end", Stage.RL, "Starting", 2)
    world.serve("end", Stage.RL, 2)
    world.run("end", Stage.RL, 2)
    assert world.wait_phase("end", Stage.RL, "Running", 2)["key"] == key


def test_a_pod_that_is_kept_from_going_is_named_until_it_goes(world: World):
    world.create("keep")
    (pod,) = world.run("keep", Stage.PREPARE)
    world.client.patch(PODS, world.namespace, pod, {"metadata": {"finalizers": ["team.example/x"]}})
    world.pod_status(pod, {"phase": "Failed", "reason": "Evicted", "message": "low"})
    world.wait_phase("keep", Stage.PREPARE, "Retrying", 1)
    world.delete_pod(pod)
    world.clock.advance(31)
    world.settle()
    text = blocked(world, "keep", "Terminating")
    assert f"pod {pod} of prepare, attempt 1" in text
    assert "team.example/x" in text
    world.client.patch(PODS, world.namespace, pod, {"metadata": {"finalizers": None}})
    free(world, "keep")
    world.clock.advance(600)
    world.settle()
    world.wait_phase("keep", Stage.PREPARE, "Starting", 2)
