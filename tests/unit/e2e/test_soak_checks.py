# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.soak import checks
from tests.e2e.soak.checks import AFTER_SECONDS, Injected
from tests.e2e.soak.history import History, Loss
from tests.e2e.soak.jobs import small_job

JOB = small_job("soak-01", seed=1)
STAGES = ("prepare", "annotate", "sft", "rl", "evaluate")
KILL = Injected("kill-trainer", "soak-01", "soak-01-rl-1-worker-0", 100, 100, {"Interrupted"})


def condition(kind: str, reason: str = "Completed") -> dict[str, Any]:
    return {"type": kind, "status": "True", "reason": reason, "message": "why"}


def whole(**stages: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "conditions": [condition("Succeeded"), condition("Ready")],
        "stages": [
            {"name": n, "phase": "Succeeded", "attempt": 1, **stages.get(n, {})} for n in STAGES
        ],
        "artifacts": [{"name": "report"}],
    }


def failed(reason: str, **rl: Any) -> dict[str, Any]:
    return {
        "conditions": [condition("Failed", reason), condition("Stalled", reason)],
        "stages": [{"name": "rl", "phase": "Failed", "attempt": 6, **rl}],
    }


def loss(reason: str | None = "Interrupted", since: float = 108, at: float = 110) -> History:
    return History(losses=(Loss("rl", 1, "Infrastructure", reason, "SIGKILL", since, at),))


def test_a_job_that_succeeded_after_an_explained_loss_has_no_problem():
    assert checks.problems(JOB, whole(), loss(), [KILL]) == []


@pytest.mark.parametrize(
    ("history", "faults"),
    [
        (loss(), []),
        (loss("OOMKilled"), [KILL]),
        (loss(since=90, at=95), [KILL]),
        (loss(since=101 + AFTER_SECONDS, at=103 + AFTER_SECONDS), [KILL]),
        (loss(), [Injected("kill-trainer", "soak-02", "p", 100, 100, {"Interrupted"})]),
        (loss(None), [Injected("kill-operator", None, "p", 100, 100, frozenset())]),
    ],
    ids=["no fault", "other reason", "before it", "long after it", "other job", "free fault"],
)
def test_a_loss_that_no_fault_explains_is_a_problem(history: History, faults: list[Injected]):
    (problem,) = checks.problems(JOB, whole(), history, faults)
    assert problem.startswith("soak-01: no fault explains why an attempt of rl ended")


def test_a_fault_of_the_whole_site_explains_the_loss_of_any_job():
    fault = Injected("freeze-kubelet", None, None, 100, 160, {"PodLost"})
    assert checks.problems(JOB, whole(), loss("PodLost"), [fault]) == []
    assert checks.problems(JOB, whole(), loss(None), [fault]) == []


def test_success_means_that_every_stage_succeeded_and_there_is_a_report():
    status = whole(rl={"phase": "Running"}) | {"artifacts": []}
    assert checks.problems(JOB, status, History(), []) == [
        "soak-01: Succeeded, but stage rl is Running",
        "soak-01: Succeeded, but there is no report",
    ]


def test_a_job_that_has_not_ended_is_told_with_what_blocks_it():
    status = {
        "stage": "rl",
        "phase": "Blocked",
        "conditions": [condition("Blocked", "Unschedulable")],
    }
    assert checks.problems(JOB, status, History(), []) == [
        "soak-01: has not ended: rl Blocked, blocked: Unschedulable"
    ]


def test_a_failure_is_true_when_its_limit_is_exceeded():
    assert checks.problems(JOB, failed("ProgramError", programFailures=6), History(), []) == []
    (problem,) = checks.problems(JOB, failed("ProgramError", programFailures=5), History(), [])
    assert "without more than policy.backoffLimit (5)" in problem
    (problem,) = checks.problems(JOB, failed("ConfigurationError"), History(), [])
    assert "no fault makes a ConfigurationError" in problem


def test_committed_work_that_was_lost_is_a_problem_of_the_job():
    history = History(problems=("the checkpoints went back",))
    assert checks.problems(JOB, whole(), history, []) == ["soak-01: the checkpoints went back"]


def obj(kind: str, name: str, stage: str = "", attempt: int = 0, phase: str = "") -> dict[str, Any]:
    labels = {}
    if stage:
        labels = {
            "r1reward.dev/job": "soak-01",
            "r1reward.dev/stage": stage,
            "r1reward.dev/attempt": str(attempt),
        }
    return {"kind": kind, "metadata": {"name": name, "labels": labels}, "status": {"phase": phase}}


def test_an_ended_job_may_keep_the_last_workers_for_their_logs_and_nothing_else():
    status = whole(rl={"attempt": 2})
    kept = [
        obj("PyTorchJob", "soak-01-rl-2", "rl", 2),
        obj("Pod", "soak-01-rl-2-worker-0", "rl", 2, "Succeeded"),
        obj("Service", "soak-01-rl-2-worker-0"),
        obj("Job", "soak-01-prepare-1", "prepare", 1),
    ]
    assert checks.held(kept, status) == []
    left = [
        obj("PyTorchJob", "soak-01-rl-1", "rl", 1),
        obj("Pod", "soak-01-rl-1-worker-0", "rl", 1, "Failed"),
        obj("Pod", "soak-01-rl-2-rollout-x", "rl", 2, "Running"),
        obj("Deployment", "soak-01-rl-2-rollout", "rl", 2),
        obj("Service", "soak-01-rl-2-rollout", "rl", 2),
        obj("Secret", "soak-01-rl-2-token-1234", "rl", 2),
        obj("ControllerRevision", "soak-01-rl-2-frozen", "rl", 2),
    ]
    assert checks.held([*kept, *left], status) == checks.names(left)


def test_ends_are_told_apart():
    assert checks.ended(whole()) == "Succeeded"
    assert checks.ended(failed("ProgramError")) == "Failed"
    assert checks.ended({"conditions": [condition("Blocked")]}) is None
