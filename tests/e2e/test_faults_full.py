# SPDX-License-Identifier: Apache-2.0
"""Faults that take minutes: what blocks, what kills, a frozen node, and every stage stopped."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from r1reward_api.constants import STAGES, Role, Stage
from tests.e2e import digits_job, watch
from tests.e2e.connection import Connection
from tests.e2e.soak import checks, jobs, machine
from tests.e2e.soak.site import Site, require_local_cluster
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]
NAMESPACE = "r1reward-faults-full"
RUNTIME = "cpu-faults-full"
STAGE_SECONDS = 420
RELEASE_SECONDS = 180
BLOCKED_SECONDS = 30
"""Within this time a user reads what blocks the job."""

Status = Mapping[str, Any]


@pytest.fixture(scope="module")
def site(cluster: Connection) -> Iterator[Site]:
    """A namespace and a runtime of these tests' own."""
    require_local_cluster()
    kubectl = cluster.kubectl
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
    digits_job.make_namespace(kubectl, cluster.storage, NAMESPACE)
    kubectl.apply(jobs.runtime(RUNTIME))
    yield Site(cluster, NAMESPACE)
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
    kubectl.run("delete", "clusterr1rewardruntime", RUNTIME, "--ignore-not-found")


def apply(site: Site, name: str, **sections: Mapping[str, Any] | None) -> None:
    """A small job on this module's runtime; what an earlier session left is deleted first."""
    site.delete(name)
    site.apply(jobs.small_job(name, 1, **{"runtimeRef": {"name": RUNTIME}, **sections}))


def until(
    site: Site, name: str, what: str, probe: Callable[[Status], bool], seconds: float
) -> Status:
    """The status when it is so."""

    def step() -> Status | None:
        status = site.status(name)
        return status if probe(status) else None

    return wait_for(f"{name}: {what}", step, seconds)


def blocked(site: Site, name: str, reason: str, seconds: float) -> str:
    """Waits until the job is blocked for the reason; returns the message."""

    def probe(status: Status) -> bool:
        found = watch.condition(status, "Blocked") or {}
        return found.get("status") == "True" and found.get("reason") == reason

    status = until(site, name, f"blocked by {reason}", probe, seconds)
    return (watch.condition(status, "Blocked") or {})["message"]


def in_phase(stage: str, *phases: str) -> Callable[[Status], bool]:
    return lambda status: watch.stage(status, stage)["phase"] in phases


def at_work(stage: str) -> Callable[[Status], bool]:
    """A pod that runs may still import its libraries: a step shows that the program is there."""

    def probe(status: Status) -> bool:
        progress = status.get("progress") or {}
        return progress.get("stage") == stage and progress.get("step", 0) >= 1

    return probe


def gone(site: Site, name: str) -> None:
    """Deletes the job; nothing of it may be left."""
    site.delete(name)

    def nothing() -> bool:
        return not site.objects(name)

    try:
        wait_for("nothing left", nothing, RELEASE_SECONDS)
    except TimeoutError:
        assert checks.names(site.objects(name)) == []


def test_an_image_that_does_not_exist_blocks_at_once_and_a_corrected_runtime_heals(site: Site):
    wrong = jobs.runtime("no-such-image")
    right = jobs.runtime("no-such-image")
    wrong["spec"]["images"]["trainer"] = "r1reward/trainer:no-such-tag"
    site.kubectl.apply(wrong)
    try:
        apply(site, "image", runtimeRef={"name": "no-such-image"})
        message = blocked(site, "image", "ImagePull", BLOCKED_SECONDS)
        assert "r1reward/trainer:no-such-tag" in message
        assert watch.stage(site.status("image"), "prepare")["attempt"] == 1
        site.kubectl.apply(right)
        status = until(
            site, "image", "prepare done", in_phase("prepare", "Succeeded"), STAGE_SECONDS
        )
        assert not watch.is_true(status, "Blocked")
        stage = watch.stage(status, "prepare")
        assert (stage["attempt"], stage.get("infrastructureFailures", 0)) == (2, 0)
        gone(site, "image")
    finally:
        site.kubectl.run("delete", "clusterr1rewardruntime", "no-such-image", "--ignore-not-found")


def test_a_job_that_no_node_takes_says_so_at_once_and_goes_on_when_one_does(site: Site):
    nodes = site.kubectl.json("get", "nodes")["items"]
    node = nodes[0]["metadata"]["name"]
    apply(site, "node", overrides={"roles": {"prepare": {"nodeSelector": {"pool": "faults"}}}})
    assert "nodeSelector" in blocked(site, "node", "Unschedulable", BLOCKED_SECONDS)
    site.kubectl.run("label", "node", node, "pool=faults")
    try:
        status = until(
            site, "node", "prepare done", in_phase("prepare", "Succeeded"), STAGE_SECONDS
        )
    finally:
        site.kubectl.run("label", "node", node, "pool-")
    assert watch.stage(status, "prepare")["attempt"] == 1
    assert not watch.is_true(status, "Blocked")
    gone(site, "node")


def test_a_container_that_needs_more_memory_than_its_limit_fails_as_oom_killed(site: Site):
    little = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}
    apply(
        site,
        "memory",
        overrides={"roles": {"prepare": {"resources": little}}},
        policy={"backoffLimit": 1},
    )
    status = until(
        site, "memory", "failed", lambda s: watch.is_true(s, "Failed"), STAGE_SECONDS
    )  # fmt: skip
    condition = watch.condition(status, "Failed") or {}
    stage = watch.stage(status, "prepare")
    assert (condition["reason"], stage["reason"]) == ("ProgramError", "OOMKilled")
    assert (stage["attempt"], stage["programFailures"]) == (2, 2)
    assert "memory than its limit" in condition["message"]
    gone(site, "memory")


def test_a_crash_of_one_trainer_is_the_programs_although_its_peer_is_cleaned_away(site: Site):
    apply(site, "crash", data={"seed": 6}, rl=None, sft={"maxSteps": 2000})
    until(site, "crash", "sft trains", at_work("sft"), STAGE_SECONDS)
    machine.crash(site.running_pods(["crash"], Role.TRAINER)[0])
    status = until(
        site,
        "crash",
        "the attempt ended",
        in_phase("sft", "Retrying", "Failed"),
        120,
    )
    stage = watch.stage(status, "sft")
    # The training operator deletes the other pod at once: that is no loss of infrastructure.
    assert stage["reason"] == "ProgramError", stage["message"]
    assert (stage.get("programFailures", 0), stage.get("infrastructureFailures", 0)) == (1, 0)
    gone(site, "crash")


def test_a_node_that_does_not_answer_costs_an_attempt_as_infrastructure_and_no_more(site: Site):
    apply(site, "frozen", data={"seed": 2}, rl=None, sft={"maxSteps": 2000})
    until(site, "frozen", "sft runs", in_phase("sft", "Running"), STAGE_SECONDS)
    machine.freeze_daemon(machine.KUBELET)
    try:
        status = until(
            site,
            "frozen",
            "the loss is seen",
            lambda s: watch.stage(s, "sft").get("infrastructureFailures", 0) >= 1,
            180,
        )
    finally:
        machine.thaw_daemon(machine.KUBELET)
    stage = watch.stage(status, "sft")
    assert stage["reason"] == "PodLost", stage["message"]
    assert stage.get("programFailures", 0) == 0
    until(
        site,
        "frozen",
        "sft goes on",
        lambda s: in_phase("sft", "Running")(s) and watch.stage(s, "sft")["attempt"] >= 2,
        STAGE_SECONDS,
    )
    gone(site, "frozen")


def test_a_job_suspended_and_resumed_in_every_stage_succeeds_without_a_failure(site: Site):
    apply(site, "paused", data={"seed": 3})
    stopped: list[str] = []
    for stage in STAGES:
        until(
            site,
            "paused",
            f"{stage} runs",
            in_phase(stage, "Running", "Succeeded", "Failed"),
            STAGE_SECONDS,
        )
        site.suspend("paused", True)
        status = until(
            site, "paused", "suspended", lambda s: watch.is_true(s, "Suspended"), RELEASE_SECONDS
        )
        if watch.stage(status, stage)["phase"] == "Suspended":
            stopped.append(stage)

        def nothing_runs() -> bool:
            servers = [o for o in site.objects("paused") if o["kind"] == "Deployment"]
            return not servers and not site.running_pods(["paused"])

        wait_for(f"nothing runs while {stage} is suspended", nothing_runs, RELEASE_SECONDS)
        site.suspend("paused", False)
    status = until(
        site,
        "paused",
        "the end",
        lambda s: checks.ended(s) is not None,
        STAGE_SECONDS,
    )
    assert watch.is_true(status, "Succeeded"), status["conditions"]
    # A stage may end just before it is stopped; those that take long were stopped for sure.
    assert {"sft", "rl", "evaluate"} <= set(stopped)
    for stage in STAGES:
        entry = watch.stage(status, stage)
        assert entry["attempt"] == (2 if stage in stopped else 1), entry
        assert (entry.get("programFailures", 0), entry.get("infrastructureFailures", 0)) == (0, 0)
    gone(site, "paused")


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_deleted_in_a_stage_leaves_nothing(site: Site, stage: Stage):
    name = f"gone-{stage}"
    # All of one seed: what an earlier one has computed, the later ones take from the cache.
    apply(site, name, data={"seed": 4})
    until(site, name, f"{stage} runs", in_phase(stage, "Running", "Succeeded"), STAGE_SECONDS)
    gone(site, name)


def test_a_namespace_with_a_running_job_is_deletable(site: Site):
    apply(site, "last", data={"seed": 5})
    until(site, "last", "it runs", in_phase("prepare", "Running", "Succeeded"), STAGE_SECONDS)
    site.kubectl.run("delete", "namespace", NAMESPACE, "--timeout=180s")
