# SPDX-License-Identifier: Apache-2.0
"""What happens to a job beside the straight path, on a real API server."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from r1reward_api.constants import Stage
from r1reward_api.names import attempt_token_secret
from r1reward_api.wire.termination import FailureClass, Termination
from r1reward_operator.kube.client import KubeClient, Resource
from r1reward_operator.kube.errors import Conflict, Forbidden, Invalid
from r1reward_operator.kube.resources import DEPLOYMENTS, JOBS, PODS, PYTORCHJOBS, SECRETS
from r1reward_operator.resources import CHILDREN, R1REWARDJOBS
from tests.clock import FakeClock
from tests.integration.operator.passes import Passes
from tests.integration.operator.world import World, rfc3339


def to_rl(world: World, name: str) -> None:
    """Walks a job without annotate and sft until the pods of rl run."""
    world.create(name, annotate=None, sft=None)
    world.run(name, Stage.PREPARE)
    world.succeed(name, Stage.PREPARE)
    world.serve(name, Stage.RL)
    world.run(name, Stage.RL)
    world.wait_phase(name, Stage.RL, "Running", 1)


def test_an_operator_that_is_restarted_in_the_middle_changes_nothing(world: World):
    to_rl(world, "restart")
    world.settle()
    world.settle()
    before = world.everything("restart")
    world.stop_operator()
    world.start_operator()
    world.eventually("a pass of the new operator", lambda: world.passes() >= 1)
    world.settle()
    assert world.everything("restart") == before
    assert "pytorchjobs.kubeflow.org/restart-rl-1" in before


def test_of_two_operators_one_leads_both_take_progress_and_the_other_takes_over(world: World):
    world.stop_operator()
    first, second = (world.new_operator(leader_elect=True) for _ in range(2))
    first.start()
    world.eventually("a leader", first.is_leader)
    second.start()
    world.operator = second  # answers the progress reports below, and is stopped at the end
    to_rl(world, "pair")
    assert not second.is_leader()
    token = world.pod_token("pair-rl-1-worker-0", "progress.r1reward.dev")
    report = {"stage": "rl", "attempt": 1, "step": 1, "heartbeat": "2026-01-01T00:00:00Z"}
    assert world.post_progress("pair", token, report) == 204
    first.stop()
    world.eventually("another leader", second.is_leader)
    world.succeed("pair", Stage.RL)
    world.wait_phase("pair", Stage.EVALUATE, "Starting", 1)


def test_a_quota_blocks_the_job_until_there_is_room(world: World):
    quotas = Resource("", "v1", "resourcequotas", "ResourceQuota")
    hard = {"count/jobs.batch": "0"}
    metadata = {"name": "none", "namespace": world.namespace}
    world.client.create(quotas, {"metadata": metadata, "spec": {"hard": hard}})
    # Written by a controller that is not here; without it the quota is not in force.
    world.client.patch_status(quotas, world.namespace, "none", {"hard": hard, "used": hard}, None)
    world.create("full")
    world.eventually("Blocked", lambda: world.condition("full", "Blocked").get("reason") == "Quota")
    assert "exceeded quota: none" in world.condition("full", "Blocked")["message"]
    world.client.delete(quotas, world.namespace, "none")
    world.run("full", Stage.PREPARE)
    world.eventually("free", lambda: world.condition("full", "Blocked")["status"] == "False")


def test_progress_is_believed_only_from_a_live_pod_of_the_attempt_and_wakes_no_reconcile(
    world: World,
):
    to_rl(world, "progress")
    report = {"stage": "rl", "attempt": 1, "step": 3, "totalSteps": 10, "percent": 30,
              "metrics": {"reward/mean": 0.5}, "heartbeat": "2026-01-01T00:00:00Z"}  # fmt: skip
    token = world.pod_token("progress-rl-1-worker-0", "progress.r1reward.dev")
    world.settle()
    before = rfc3339()

    def wakes(step: int) -> bool:
        sent = {**report, "step": step}
        passes = world.passes()
        world.eventually("accepted", lambda: world.post_progress("progress", token, sent) == 204)
        found = world.job("progress")["status"]["progress"]
        assert found == {**sent, "heartbeat": found["heartbeat"]}
        assert found["heartbeat"] >= before, "by the operator's clock, not by that of the pod"
        return world.passes() > passes

    # The clock may call for a pass at the same moment, but not at every report.
    assert not all(wakes(step) for step in (3, 4, 5))

    other_audience = world.pod_token("progress-rl-1-worker-0", "somebody.else")
    ended = world.pod_token("progress-prepare-1-abcde", "progress.r1reward.dev")
    assert world.post_progress("progress", "nonsense", report) == 401
    assert world.post_progress("progress", other_audience, report) == 401
    assert world.post_progress("progress", ended, report) == 401
    assert world.post_progress("other", token, report) == 403
    assert world.post_progress("progress", token, {**report, "attempt": 2}) == 403
    assert world.post_progress("progress", token, {**report, "percent": 101}) == 400
    assert world.post_progress("progress", token, {**report, "message": "x" * 20_000}) == 413


def test_storage_that_does_not_answer_a_stage_blocks_the_job_while_it_says_so(world: World):
    to_rl(world, "away")
    token = world.pod_token("away-rl-1-worker-0", "progress.r1reward.dev")
    works = {"stage": "rl", "attempt": 1, "step": 1, "heartbeat": rfc3339()}
    fault = "storage http://s3 does not work: its name does not resolve"

    def send(report: dict[str, Any]) -> None:
        world.eventually("accepted", lambda: world.post_progress("away", token, report) == 204)

    send({**works, "waitingFor": fault})
    blocked = world.eventually(
        "blocked", lambda: (c := world.condition("away", "Blocked"))["status"] == "True" and c,
        seconds=10,
    )  # fmt: skip
    assert blocked["reason"] == "StorageUnavailable"
    assert fault in blocked["message"]
    send(works)
    world.eventually(
        "free", lambda: world.condition("away", "Blocked")["status"] == "False", seconds=10
    )


def test_a_report_without_metrics_takes_the_place_of_one_with_metrics(world: World):
    to_rl(world, "bare")
    token = world.pod_token("bare-rl-1-worker-0", "progress.r1reward.dev")
    full = {"stage": "rl", "attempt": 1, "step": 1, "metrics": {"loss": 0.5},
            "heartbeat": "2026-01-01T00:00:00Z"}  # fmt: skip
    bare = {**full, "step": 2, "metrics": {}}
    for report in (full, bare):
        world.eventually("accepted", lambda r=report: world.post_progress("bare", token, r) == 204)
    found = world.job("bare")["status"]["progress"]
    assert (found["step"], found.get("metrics", {})) == (2, {})


def test_suspend_frees_the_pods_and_resume_is_a_new_attempt_when_they_are_gone(world: World):
    to_rl(world, "pause")
    world.change("pause", {"suspend": True})
    world.wait_phase("pause", Stage.RL, "Suspended", 1)
    world.eventually(
        "worker and services gone",
        lambda: (
            not world.client.list(PYTORCHJOBS, world.namespace)["items"]
            and not world.client.list(DEPLOYMENTS, world.namespace)["items"]
        ),
    )
    assert world.condition("pause", "Suspended")["status"] == "True"

    world.change("pause", {"suspend": False})
    world.eventually(
        "Suspended False", lambda: world.condition("pause", "Suspended")["reason"] == "Resumed"
    )
    world.settle()
    assert world.stage("pause", Stage.RL)["attempt"] == 1, "its pods are still there"
    for pod in world.pods("pause", Stage.RL, 1):
        world.delete_pod(pod)
    stage = world.wait_phase("pause", Stage.RL, "Starting", 2)
    assert (stage["programFailures"], stage["infrastructureFailures"]) == (0, 0)
    world.serve("pause", Stage.RL, 2)
    assert len(world.run("pause", Stage.RL, 2)) == 2


def test_a_pod_that_comes_back_under_another_uid_ends_the_attempt_as_infrastructure(world: World):
    to_rl(world, "replaced")
    name = "replaced-rl-1-worker-1"
    worker = world.get(PYTORCHJOBS, "replaced-rl-1")
    assert worker is not None
    world.stop_operator()
    world.delete_pod(name)
    template = worker["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    world.make_pod(PYTORCHJOBS, worker, template, name, 1)
    world.start_operator()
    stage = world.wait_phase("replaced", Stage.RL, "Retrying", 1)
    assert (stage["reason"], stage["infrastructureFailures"], stage["programFailures"]) == (
        "PodLost", 1, 0,
    )  # fmt: skip
    for pod in world.pods("replaced", Stage.RL, 1):
        world.delete_pod(pod)
    world.wait_phase("replaced", Stage.RL, "Starting", 2)
    key = world.key("replaced", Stage.RL)
    frozen = world.eventually(
        "frozen", lambda: world.get(CHILDREN["ControllerRevision"], "replaced-rl-2-frozen")
    )
    assert frozen["data"]["key"] == key, "the key of a stage that has run stands"


def test_a_configuration_error_fails_the_job_at_once_and_rerun_starts_it_again(world: World):
    world.create("wrong")
    (pod,) = world.run("wrong", Stage.PREPARE)
    message = Termination(
        stage=Stage.PREPARE,
        attempt=1,
        outcome="Failed",
        failure_class=FailureClass.CONFIGURATION,
        reason="StorageDenied",
        message="bucket r1reward: access denied; check Secret s3",
    )
    world.end_pod(pod, "r1", 78, message.encode())
    world.wait_phase("wrong", Stage.PREPARE, "Failed", 1)
    failed = world.condition("wrong", "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "ConfigurationError")
    assert (
        "StorageDenied: pod wrong-prepare-1-abcde: bucket r1reward: access denied"
        in (failed["message"])
    )
    assert world.condition("wrong", "Stalled")["status"] == "True"

    world.change("wrong", {"rerun": 1})
    world.eventually("prepare taken back", lambda: world.get(JOBS, "wrong-prepare-1") is None)
    world.delete_pod(pod)
    world.wait_phase("wrong", Stage.PREPARE, "Starting", 2)
    assert world.condition("wrong", "Failed")["status"] == "False"


def test_a_rerun_that_is_asked_for_just_before_the_ttl_ends_keeps_the_job(
    worlds: Callable[[], World], operator_client: KubeClient
):
    world, clock = worlds(), FakeClock(datetime.now(UTC))
    passes = Passes(operator_client, world.namespace, clock)
    world.create("late", policy={"ttlSecondsAfterFinished": 60})
    passes.rest("late")
    (pod,) = world.run("late", Stage.PREPARE)
    world.end_pod(pod, "r1", 78, "")
    passes.rest("late")
    assert world.job("late")["status"]["phase"] == "Failed"
    clock.advance(61)
    world.change("late", {"rerun": 1})
    with pytest.raises(Conflict):
        passes.once("late")
    world.delete_pod(pod)
    passes.rest("late")
    stage = world.stage("late", Stage.PREPARE)
    assert (stage["phase"], stage["attempt"]) == ("Starting", 2)


def test_a_started_job_refuses_other_work_but_takes_more_replicas(world: World):
    to_rl(world, "fixed")
    with pytest.raises(Invalid, match=r"spec\.model cannot change once the job has started"):
        world.change("fixed", {"model": {"uri": "s3://r1reward/another"}})
    world.change("fixed", {"rl": {"rollout": {"replicas": 3}}})

    def replicas() -> bool:
        found = world.get(DEPLOYMENTS, "fixed-rl-1-rollout")
        return found is not None and found["spec"]["replicas"] == 3

    world.eventually("3 rollout servers", replicas)
    rollout = world.get(DEPLOYMENTS, "fixed-rl-1-rollout")
    assert rollout is not None
    world.make_ready(rollout)


def test_a_job_that_was_created_suspended_may_still_change_and_starts_when_resumed(world: World):
    world.create("later", suspend=True)
    world.eventually(
        "Suspended", lambda: world.condition("later", "Suspended").get("status") == "True"
    )
    assert "startTime" not in world.job("later")["status"]
    world.change("later", {"model": {"uri": "s3://r1reward/another"}})
    world.change("later", {"suspend": False})
    world.wait_phase("later", Stage.PREPARE, "Starting", 1)


def test_a_missing_runtime_blocks_the_job_until_it_is_there(world: World):
    world.create("early", runtimeRef={"kind": "R1RewardRuntime", "name": "ours"})
    world.eventually(
        "Blocked", lambda: world.condition("early", "Blocked").get("reason") == "Dependency"
    )
    assert "R1RewardRuntime ours does not exist" in world.condition("early", "Blocked")["message"]
    world.copy_runtime("ours")
    world.wait_phase("early", Stage.PREPARE, "Starting", 1)
    world.eventually(
        "unblocked", lambda: world.condition("early", "Blocked")["reason"] == "NotBlocked"
    )


def test_an_object_of_somebody_else_is_left_alone_and_named(world: World):
    name = {"name": "taken-prepare-1", "namespace": world.namespace}
    spec = {
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "x"}],
            }
        }
    }
    theirs = world.client.create(JOBS, {"metadata": name, "spec": spec})
    world.create("taken")
    world.eventually(
        "Blocked", lambda: world.condition("taken", "Blocked").get("reason") == "NameCollision"
    )
    live = world.get(JOBS, "taken-prepare-1")
    assert live is not None
    assert live["metadata"]["uid"] == theirs["metadata"]["uid"]
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "x"


def test_what_an_earlier_job_of_the_same_name_has_left_gives_way(world: World):
    # Nothing collects garbage here, as where the garbage collector has missed the deletion.
    world.create("again")
    first = world.eventually("the first job's", lambda: world.get(JOBS, "again-prepare-1"))
    world.client.delete(R1REWARDJOBS, world.namespace, "again")
    world.create("again")
    uid = world.job("again")["metadata"]["uid"]
    second = world.eventually(
        "the second job's",
        lambda: (
            (job := world.get(JOBS, "again-prepare-1"))
            and job["metadata"]["uid"] != first["metadata"]["uid"]
            and job
        ),
        seconds=60,
    )
    assert second["metadata"]["ownerReferences"][0]["uid"] == uid
    world.run("again", Stage.PREPARE)
    world.wait_phase("again", Stage.PREPARE, "Running", 1)
    assert world.condition("again", "Blocked")["status"] == "False"


def test_every_child_goes_with_the_job(world: World):
    to_rl(world, "owned")
    job = world.job("owned")["metadata"]
    owners = {}
    for resource in CHILDREN.values():
        for item in world.client.list(resource, world.namespace)["items"]:
            (owner,) = item["metadata"]["ownerReferences"]
            owners[item["metadata"]["name"]] = (owner["uid"], owner["controller"])
    assert set(owners.values()) == {(job["uid"], True)}
    assert {"owned-rl-1", "owned-rl-1-rollout", "owned-rl-1-verifier", "owned-rl-1-config"} <= set(
        owners
    )
    secret = world.get(SECRETS, token_name(world, "owned"))
    frozen = world.get(CHILDREN["ControllerRevision"], "owned-rl-1-frozen")
    assert secret is not None
    assert frozen is not None
    assert secret["metadata"]["ownerReferences"][0]["uid"] == frozen["metadata"]["uid"]


def token_name(world: World, job: str) -> str:
    return attempt_token_secret(job, world.job(job)["metadata"]["uid"], Stage.RL, 1)


def test_the_operators_account_cannot_read_a_secret_or_a_pod_log(
    world: World, operator_client: KubeClient
):
    to_rl(world, "blind")
    with pytest.raises(Forbidden):
        operator_client.get(SECRETS, world.namespace, token_name(world, "blind"))
    with pytest.raises(Forbidden):
        operator_client.list(SECRETS, world.namespace)
    with pytest.raises(Forbidden):
        operator_client.create(
            PODS, {"metadata": {"name": "x", "namespace": world.namespace}, "spec": {}}
        )


def test_no_token_stands_in_a_status_a_revision_or_a_configuration(world: World):
    to_rl(world, "quiet")
    secret = world.get(SECRETS, token_name(world, "quiet"))
    assert secret is not None
    encoded = secret["data"]["token"]
    token = base64.b64decode(encoded).decode()
    assert len(token) >= 43
    for resource in CHILDREN.values():
        text = json.dumps(world.client.list(resource, world.namespace))
        assert token not in text
        assert encoded not in text
    assert token not in json.dumps(world.job("quiet"))
