# SPDX-License-Identifier: Apache-2.0
"""Who pays for the end of an attempt."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from r1reward_api.constants import Stage
from r1reward_api.wire.termination import FailureClass, Termination
from r1reward_operator.plan.attempt import (
    Ending,
    Evidence,
    Failure,
    Success,
    Waiting,
    ending,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
INFRASTRUCTURE, PROGRAM, CONFIGURATION = (
    FailureClass.INFRASTRUCTURE,
    FailureClass.PROGRAM,
    FailureClass.CONFIGURATION,
)


def stamp(seconds: float = 0) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(index: int = 0, **status: Any) -> dict[str, Any]:
    """A worker's pod, running unless the status says otherwise."""
    return {
        "metadata": {
            "name": f"worker-{index}",
            "uid": f"uid-{index}",
            "labels": {"training.kubeflow.org/replica-index": str(index)},
        },
        "spec": {"nodeName": f"node-{index}"},
        "status": {"phase": "Running", **status},
    }


def ended(
    index: int = 0,
    code: int = 1,
    message: str | Termination = "",
    at: float = -60,
    reason: str = "Error",
    **status: Any,
) -> dict[str, Any]:
    """A pod whose container has ended."""
    text = message.encode() if isinstance(message, Termination) else message
    state = {"exitCode": code, "reason": reason, "message": text, "finishedAt": stamp(at)}
    return pod(
        index,
        phase="Failed" if code else "Succeeded",
        containerStatuses=[{"name": "pytorch", "state": {"terminated": state}}],
        **status,
    )


def said(failure_class: FailureClass, reason: str, attempt: int = 2) -> Termination:
    return Termination(
        stage=Stage.RL, attempt=attempt, outcome="Failed", failure_class=failure_class,
        reason=reason, message="in words",
    )  # fmt: skip


def worker(kind: str | None = None, at: float = -60, **metadata: Any) -> dict[str, Any]:
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": stamp(at)}] if kind else []
    return {
        "kind": "PyTorchJob",
        "metadata": {"name": "worker", "uid": "w", **metadata},
        "status": {"conditions": conditions},
    }


def judge(*pods: dict[str, Any], of: dict[str, Any] | None = None, **given: Any) -> Ending:
    """The verdict on an attempt with these pods."""
    evidence = Evidence(
        stage=Stage.RL,
        attempt=2,
        worker=given.get("worker", of or worker()),
        worker_seen=True,
        pods=pods,
        recorded=given.get("recorded", {}),
    )
    return ending(evidence, NOW)


DISRUPTED = {
    "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
    "message": "drained",
}  # fmt: skip
UNREADY = [
    {"type": "Ready", "status": "False"},
    {"type": "ContainersReady", "status": "True"},
]


def deleting(made: dict[str, Any], since: float = -70, grace: int = 90) -> dict[str, Any]:
    """A pod whose deletion began so many seconds from now, as the API server writes it."""
    made["metadata"]["deletionTimestamp"] = stamp(since + grace)
    made["metadata"]["deletionGracePeriodSeconds"] = grace
    return made


PAYS = {
    "the message of a program's own failure": (
        [ended(code=1, message=said(PROGRAM, "NonFiniteLoss"))],
        PROGRAM, "NonFiniteLoss",
    ),
    "the message of a wrong configuration": (
        [ended(code=78, message=said(CONFIGURATION, "StorageDenied"))],
        CONFIGURATION, "StorageDenied",
    ),
    "the message counts, not torchrun's own exit code": (
        [ended(code=1, message=said(CONFIGURATION, "InvalidData"))],
        CONFIGURATION, "InvalidData",
    ),
    "SIGTERM after saving": (
        [ended(code=143, message=Termination(stage=Stage.RL, attempt=2, outcome="Interrupted"))],
        INFRASTRUCTURE, "Interrupted",
    ),
    "a message of another attempt is not believed": (
        [ended(code=1, message=said(CONFIGURATION, "InvalidData", attempt=1))],
        PROGRAM, "ProgramError",
    ),
    "a reason that is no word is not repeated": (
        [ended(code=1, message=said(PROGRAM, "No Word\n"))], PROGRAM, "ProgramError",
    ),
    "exit code 78 without a message": ([ended(code=78)], CONFIGURATION, "ConfigurationError"),
    "exit code 75 without a message": ([ended(code=75)], INFRASTRUCTURE, "InfrastructureError"),
    "exit code 143 without a message": ([ended(code=143)], INFRASTRUCTURE, "Interrupted"),
    "SIGKILL by nobody known": ([ended(code=137)], INFRASTRUCTURE, "Interrupted"),
    "more memory than the limit": (
        [ended(code=137, reason="OOMKilled")], PROGRAM, "OOMKilled",
    ),
    "any other exit code": ([ended(code=3)], PROGRAM, "ProgramError"),
    "eviction by the kubelet": (
        [pod(phase="Failed", reason="Evicted", message="low on memory")],
        INFRASTRUCTURE, "Evicted",
    ),
    "a drained pod, whatever its program said": (
        [ended(code=1, message=said(PROGRAM, "NonFiniteLoss"), conditions=[DISRUPTED])],
        INFRASTRUCTURE, "Evicted",
    ),
    "a peer that failed because another pod is being drained": (
        [pod(0, conditions=[DISRUPTED]), ended(1, message=said(PROGRAM, "ProgramError"))],
        INFRASTRUCTURE, "Evicted",
    ),
    "a peer that failed because somebody deletes another pod": (
        [deleting(pod(0)), ended(1, message=said(PROGRAM, "ProgramError"))],
        INFRASTRUCTURE, "PodLost",
    ),
    "a program whose peer the training operator deletes when it has failed": (
        [ended(0, message=said(PROGRAM, "NonFiniteLoss"), at=-60), deleting(pod(1), since=-59)],
        PROGRAM, "NonFiniteLoss",
    ),
    "a wrong configuration whose peer was told to stop for it": (
        [
            ended(0, message=said(CONFIGURATION, "InvalidModel"), at=-60),
            deleting(ended(1, code=143, at=-58), since=-60),
        ],
        CONFIGURATION, "InvalidModel",
    ),
    "a node that does not answer": (
        [pod(0, conditions=UNREADY), ended(1)], INFRASTRUCTURE, "PodLost",
    ),
    "a pod that was refused by its node": (
        [pod(phase="Failed", reason="UnexpectedAdmissionError")], INFRASTRUCTURE, "Evicted",
    ),
    "a pod that failed before its container ran": (
        [pod(phase="Failed")], INFRASTRUCTURE, "PodLost",
    ),
    "the one that ended first decides": (
        [
            ended(0, message=said(PROGRAM, "ProgramError"), at=-50),
            ended(1, message=said(CONFIGURATION, "InvalidModel"), at=-60),
        ],
        CONFIGURATION, "InvalidModel",
    ),
    "one that only lost its peer does not decide": (
        [
            ended(0, message=said(INFRASTRUCTURE, "PeerLost"), at=-60),
            ended(1, message=said(PROGRAM, "NonFiniteLoss"), at=-59),
        ],
        PROGRAM, "NonFiniteLoss",
    ),
    "all lost their peers": (
        [ended(0, message=said(INFRASTRUCTURE, "PeerLost"))], INFRASTRUCTURE, "PeerLost",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PAYS)
def test_who_pays_for(case: str):
    pods, failure_class, reason = PAYS[case]
    verdict = judge(*pods)
    assert isinstance(verdict, Failure)
    assert (verdict.failure_class, verdict.reason) == (failure_class, reason)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        ("vanished", judge(pod(0), recorded={"worker-0": "uid-0", "worker-1": "uid-1"})),
        ("was replaced", judge(pod(0), recorded={"worker-0": "another"})),
        ("was deleted by somebody else", judge(worker=None)),
        ("is being deleted", judge(pod(0), of=worker(deletionTimestamp=stamp()))),
    ],
)
def test_what_is_gone_without_our_doing_is_infrastructure(case: str, verdict: Ending):
    assert isinstance(verdict, Failure)
    assert (verdict.failure_class, verdict.reason) == (INFRASTRUCTURE, "PodLost")
    assert case in verdict.message


def test_a_peer_that_is_gone_after_the_failure_is_a_consequence_of_it():
    failed = ended(0, message=said(PROGRAM, "NonFiniteLoss"))
    recorded = {"worker-0": "uid-0", "worker-1": "uid-1"}
    verdict = judge(failed, of=worker("Failed"), recorded=recorded)
    assert isinstance(verdict, Failure)
    assert (verdict.failure_class, verdict.reason) == (PROGRAM, "NonFiniteLoss")
    # Before the training operator has seen the failure, nobody but a stranger deletes.
    verdict = judge(failed, recorded=recorded)
    assert isinstance(verdict, Failure)
    assert (verdict.failure_class, verdict.reason) == (INFRASTRUCTURE, "PodLost")


def test_a_failure_on_a_node_whose_clock_is_fast_still_comes_before_the_clean_up_after_it():
    failed = ended(0, at=-30, message=said(PROGRAM, "NonFiniteLoss"))
    verdict = judge(failed, deleting(pod(1), since=-60), of=worker("Failed", at=-60))
    assert isinstance(verdict, Failure)
    assert (verdict.failure_class, verdict.reason) == (PROGRAM, "NonFiniteLoss")
    # What was deleted before the failure was marked is a stranger's doing all the same.
    verdict = judge(failed, deleting(pod(1), since=-62), of=worker("Failed", at=-60))
    assert isinstance(verdict, Failure)
    assert (verdict.failure_class, verdict.reason) == (INFRASTRUCTURE, "PodLost")


def test_a_drained_pod_may_use_its_grace_period():
    assert judge(deleting(pod(0, conditions=[DISRUPTED])), pod(1)) is None


def test_peers_have_ten_seconds_to_bring_their_evidence():
    assert judge(pod(0), ended(1, at=-4)) == Waiting(6.0)
    assert isinstance(judge(pod(0), ended(1, at=-10)), Failure)
    assert isinstance(judge(ended(0, at=-4), ended(1, at=-4)), Failure), "nobody is left to ask"


def test_a_node_whose_clock_is_fast_is_not_waited_for_until_its_time_has_come():
    failed = ended(0, 1, at=3600, told=said(FailureClass.PROGRAM, "ProgramError"))
    found = judge(failed, pod(1))
    assert isinstance(found, Failure)
    assert found.failure_class is FailureClass.PROGRAM


def test_success_is_the_first_pods_message():
    done = Termination(stage=Stage.RL, attempt=2, outcome="Succeeded", key="k")
    verdict = judge(ended(1, 0), ended(0, 0, done), of=worker("Succeeded"))
    assert verdict == Success(done)


def test_a_success_without_a_message_is_a_program_failure():
    verdict = judge(ended(0, 0, "done!"), of=worker("Succeeded"))
    assert isinstance(verdict, Failure)
    assert verdict.failure_class is PROGRAM
    assert "without a termination message" in verdict.message


def test_a_success_whose_pod_lags_is_waited_for_and_then_asked_of_the_next_attempt():
    assert judge(pod(0), of=worker("Succeeded", at=-5)) == Waiting(25.0)
    verdict = judge(of=worker("Succeeded", at=-30))
    assert isinstance(verdict, Failure)
    assert (verdict.failure_class, verdict.reason) == (INFRASTRUCTURE, "PodLost")


def test_a_worker_that_failed_without_any_pod_to_show_for_it_is_infrastructure():
    assert judge(of=worker("Failed", at=-5)) == Waiting(25.0)
    verdict = judge(of=worker("Failed", at=-31))
    assert isinstance(verdict, Failure)
    assert verdict.failure_class is INFRASTRUCTURE


def test_an_attempt_at_work_has_not_ended():
    assert judge(pod(0), pod(1), recorded={"worker-0": "uid-0"}) is None
    assert judge() is None
