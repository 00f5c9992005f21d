# SPDX-License-Identifier: Apache-2.0
"""How an attempt ended, read from its worker and the worker's pods.

Failure classes, first match wins:
    1. any pod was disrupted, evicted, lost with its node, replaced, or deleted by
       somebody else                      -> Infrastructure, whatever its peers say
    2. the container that ended first     -> what its termination message says,
                                             or what its exit code means
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from r1reward_api.constants import (
    LABEL_TRAINING_INDEX,
    MAIN_CONTAINER,
    TRAINER_CONTAINER,
    ExitCode,
    Stage,
)
from r1reward_api.reasons import Reason
from r1reward_api.wire.termination import FailureClass, Termination
from r1reward_operator.observed import condition, is_true
from r1reward_operator.plan.last_words import last_words
from r1reward_operator.plan.model import JsonObject
from r1reward_operator.plan.pods import deletion_began, is_unreachable
from r1reward_operator.plan.times import parse_time, seconds_since

SETTLE_SECONDS = 10.0
"""After the first failure, how long the other pods may bring their evidence: the kubelets of
several nodes report at different times, and the first report need not be of the first end."""
MESSAGE_SECONDS = 30.0
"""How long a finished worker's pod may lag behind the worker."""

_LOST_REASONS = frozenset(
    {"Evicted", "NodeLost", "NodeShutdown", "Terminated", "Shutdown", "Preempting",
     "NodeAffinity", "UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods"}
)  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        failure_class: what it costs.
        reason: in one word.
        message: in words.
    """

    failure_class: FailureClass
    reason: str
    message: str


@dataclass(frozen=True)
class Success:
    """An attempt that did its work, and what it says of it."""

    termination: Termination


@dataclass(frozen=True)
class Waiting:
    """An end that cannot be judged yet; look again after so many seconds."""

    seconds: float


Ending = Failure | Success | Waiting | None


@dataclass(frozen=True)
class Evidence:
    """What is known of an attempt.

    Attributes:
        stage, attempt: which.
        worker: the Job or PyTorchJob; None when it is not there.
        worker_seen: whether it had been there.
        pods: the worker's pods.
        recorded: UIDs of the pods seen before, by name.
    """

    stage: Stage
    attempt: int
    worker: JsonObject | None
    worker_seen: bool
    pods: Sequence[JsonObject]
    recorded: Mapping[str, str]


def ending(evidence: Evidence, now: datetime) -> Ending:
    """How the attempt ended; None while it has not."""
    if evidence.worker is not None and succeeded(evidence.worker):
        return _success(evidence, evidence.worker, now)
    lost = _lost(evidence, now)
    if lost is not None:
        return lost
    failed = [p for p in evidence.pods if _has_failed(p)]
    if failed:
        return _failure(evidence, failed, now)
    if evidence.worker is not None and _has_worker_failed(evidence.worker):
        return _worker_failure(evidence, evidence.worker, now)
    return None


def server_failure(pods: Sequence[JsonObject], stage: Stage, attempt: int) -> Failure | None:
    """A server that ended because the user must change something: waiting holds GPUs in vain.

    Every other end of a server is the kubelet's to mend: it starts the container again.

    Args:
        pods: of the attempt's servers.
        stage, attempt: which.
    """
    for pod in pods:
        status = pod.get("status") or {}
        for container in (
            *(status.get("initContainerStatuses") or ()),
            *(status.get("containerStatuses") or ()),
        ):
            for state in (container.get("state"), container.get("lastState")):
                end = (state or {}).get("terminated") or {}
                if end.get("exitCode") == ExitCode.CONFIGURATION:
                    where = f"pod {_name(pod)}, container {container.get('name')}"
                    said = _message(stage, attempt, end)
                    return _by_exit_code(where, end) if said is None else _as_told(where, said)
    return None


def succeeded(worker: JsonObject) -> bool:
    """Whether a Job or PyTorchJob reports success."""
    return is_true(worker, "Complete") or is_true(worker, "Succeeded")


def finished(worker: JsonObject) -> bool:
    """Whether a Job or PyTorchJob will start no more pods."""
    return succeeded(worker) or _has_worker_failed(worker)


def is_running(pod: JsonObject) -> bool:
    """Whether the pod's container runs or has run."""
    return (pod.get("status") or {}).get("phase") in ("Running", "Succeeded")


def terminated(pod: JsonObject) -> Mapping[str, Any] | None:
    """The end of the container that counts; None while it has not ended."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") in (MAIN_CONTAINER, TRAINER_CONTAINER):
            return (status.get("state") or {}).get("terminated")
    return None


def _success(evidence: Evidence, worker: JsonObject, now: datetime) -> Ending:
    """The first pod's termination message is the result."""
    first = min(evidence.pods, key=_index, default=None)
    end = terminated(first) if first is not None else None
    if end is None:
        ended = _end_time(worker)
        waited = seconds_since(ended, now)
        if waited is not None and waited < MESSAGE_SECONDS:
            return Waiting(MESSAGE_SECONDS - waited)
        return Failure(
            FailureClass.INFRASTRUCTURE,
            Reason.POD_LOST,
            f"{worker['kind']} {_name(worker)} succeeded, but its pod went before its result "
            "was read; the next attempt finds the result in storage",
        )
    message = _message(evidence.stage, evidence.attempt, end)
    if message is not None and message.outcome == "Succeeded":
        return Success(message)
    return Failure(
        FailureClass.PROGRAM,
        Reason.PROGRAM_ERROR,
        f"pod {_name(first or worker)} ended with exit code 0 without a termination message; "
        "operator and trainer image must be of the same release",
    )


def _lost(evidence: Evidence, now: datetime) -> Failure | None:
    """Evidence of infrastructure in any pod.

    When a pod fails, the training operator marks its job as failed and deletes the other pods:
    that is a consequence, and no evidence. The mark comes before the deletions, and both by the
    clocks of the control plane; a node's own clock may be fast.
    """
    failed = [p for p in evidence.pods if _has_failed(p)]
    marked = evidence.worker if evidence.worker and _has_worker_failed(evidence.worker) else None
    ends = [_ended_at(p) for p in failed] + ([_end_time(marked)] if marked else [])
    first_end = min((e for e in ends if e), default=None)
    for pod in evidence.pods:
        failure = _disruption(pod, bool(failed), first_end, now)
        if failure is not None:
            return failure
    cleaned = bool(failed) and marked is not None
    by_name = {_name(p): p["metadata"]["uid"] for p in evidence.pods}
    for name, uid in evidence.recorded.items():
        if name not in by_name:
            if cleaned:
                continue
            return _pod_lost(f"pod {name} vanished")
        if by_name[name] != uid:
            return _pod_lost(f"pod {name} was replaced by another one of its name")
    if evidence.worker is None and evidence.worker_seen:
        return _pod_lost("the stage's Job or PyTorchJob was deleted by somebody else")
    if evidence.worker is not None and evidence.worker["metadata"].get("deletionTimestamp"):
        return _pod_lost(f"{evidence.worker['kind']} {_name(evidence.worker)} is being deleted")
    return None


def _disruption(
    pod: JsonObject, ended: bool, first_end: str | None, now: datetime
) -> Failure | None:
    """Why the infrastructure took, or takes, the pod.

    A pod that is being drained is left to save its state, so its disruption ends the
    attempt only when it, or a peer that lost it, has ended. One that has not run has none.

    Args:
        pod: one of the attempt's.
        ended: whether any of them has failed.
        first_end: when the first of them failed, as its container or the worker says.
        now: the time.
    """
    status = pod.get("status") or {}
    reason = status.get("reason")
    if _has_failed(pod) and reason in _LOST_REASONS:
        text = status.get("message") or reason
        return Failure(
            FailureClass.INFRASTRUCTURE, Reason.EVICTED, f"pod {_name(pod)}: {reason}: {text}"
        )
    target = condition(pod, "DisruptionTarget")
    if ended and target is not None and target.get("status") == "True":
        return Failure(
            FailureClass.INFRASTRUCTURE,
            Reason.EVICTED,
            f"pod {_name(pod)}: {target.get('reason', '')}: {target.get('message', '')}",
        )
    if (ended or status.get("phase") == "Pending") and _is_deleted(pod, first_end):
        return _pod_lost(f"pod {_name(pod)} is deleted by somebody else")
    if node_is_lost(pod) or is_unreachable(pod, now):
        node = (pod.get("spec") or {}).get("nodeName", "")
        return _pod_lost(f"pod {_name(pod)}: its node {node} does not answer")
    return None


def _is_deleted(pod: JsonObject, first_end: str | None) -> bool:
    """Whether the pod's deletion began before the first failure."""
    began = deletion_began(pod)
    if began is None or first_end is None:
        return began is not None
    return began < parse_time(first_end)


def node_is_lost(pod: JsonObject) -> bool:
    """The node controller turns only Ready to False: the kubelet would turn both."""
    ready, containers = condition(pod, "Ready"), condition(pod, "ContainersReady")
    return (
        (pod.get("status") or {}).get("phase") == "Running"
        and ready is not None
        and containers is not None
        and ready.get("status") == "False"
        and containers.get("status") == "True"
        and not (pod.get("spec") or {}).get("readinessGates")
    )


def _failure(evidence: Evidence, failed: Sequence[JsonObject], now: datetime) -> Ending:
    """Judges by the container that ended first, once the others had time to report."""
    still = [p for p in evidence.pods if not _has_failed(p) and not _has_succeeded(p)]
    first_end = min((e for p in failed if (e := _ended_at(p))), default=None)
    waited = seconds_since(first_end, now)
    # A node whose clock is fast by more than that is not waited for until its time has come.
    if still and waited is not None and abs(waited) < SETTLE_SECONDS:
        return Waiting(SETTLE_SECONDS - waited)
    # A process that lost its peer names no cause: it decides only when nobody else does.
    verdicts = [(_ended_at(p) or "9", _index(p), _verdict(evidence, p)) for p in failed]
    causes = [v for v in verdicts if v[2].reason != Reason.PEER_LOST] or verdicts
    return min(causes, key=lambda v: v[:2])[2]


def _verdict(evidence: Evidence, pod: JsonObject) -> Failure:
    end = terminated(pod)
    where = f"pod {_name(pod)}"
    if end is None:
        return _pod_lost(f"{where} failed before its container ran: {_status_text(pod)}")
    message = _message(evidence.stage, evidence.attempt, end)
    if message is not None and message.outcome == "Interrupted":
        return Failure(FailureClass.INFRASTRUCTURE, Reason.INTERRUPTED, f"{where}: SIGTERM")
    if message is not None and message.outcome == "Failed":
        return _as_told(where, message)
    return _by_exit_code(where, end)


def _as_told(where: str, message: Termination) -> Failure:
    failure_class = message.failure_class or FailureClass.PROGRAM
    reason = message.reason if message.reason.isalnum() else Reason.PROGRAM_ERROR
    return Failure(failure_class, reason, f"{where}: {message.message}")


def _by_exit_code(where: str, end: Mapping[str, Any]) -> Failure:
    code = end.get("exitCode", ExitCode.PROGRAM)
    if end.get("reason") == "OOMKilled":
        return Failure(
            FailureClass.PROGRAM,
            Reason.OOM_KILLED,
            f"{where} used more memory than its limit; raise the limit in the runtime, or lower "
            "microBatchSize",
        )
    said = last_words(end)
    text = f"{where} ended with exit code {code}" + (f": {said}" if said else "")
    match code:
        case ExitCode.CONFIGURATION:
            return Failure(FailureClass.CONFIGURATION, Reason.CONFIGURATION_ERROR, text)
        case ExitCode.INFRASTRUCTURE:
            return Failure(FailureClass.INFRASTRUCTURE, Reason.INFRASTRUCTURE_ERROR, text)
        case ExitCode.INTERRUPTED | 130 | 137:  # SIGTERM, SIGINT, SIGKILL
            return Failure(FailureClass.INFRASTRUCTURE, Reason.INTERRUPTED, text)
        case _:
            return Failure(FailureClass.PROGRAM, Reason.PROGRAM_ERROR, text)


def _worker_failure(evidence: Evidence, worker: JsonObject, now: datetime) -> Ending:
    """The worker failed and no pod shows why."""
    waited = seconds_since(_end_time(worker), now)
    if waited is not None and waited < MESSAGE_SECONDS:
        return Waiting(MESSAGE_SECONDS - waited)
    failed = condition(worker, "Failed") or {}
    return _pod_lost(
        f"{worker['kind']} {_name(worker)} failed ({failed.get('reason', 'no reason')}: "
        f"{failed.get('message', '')}) and its pods are gone"
    )


def _message(stage: Stage, attempt: int, end: Mapping[str, Any]) -> Termination | None:
    """The termination message, if it is of this very attempt."""
    message = Termination.decode(end.get("message"))
    if message is None or (message.stage, message.attempt) != (stage, attempt):
        return None
    return message


def _pod_lost(text: str) -> Failure:
    return Failure(FailureClass.INFRASTRUCTURE, Reason.POD_LOST, text)


def _has_failed(pod: JsonObject) -> bool:
    if (pod.get("status") or {}).get("phase") == "Failed":
        return True
    end = terminated(pod)
    return end is not None and end.get("exitCode", 0) != 0


def _has_succeeded(pod: JsonObject) -> bool:
    return (pod.get("status") or {}).get("phase") == "Succeeded"


def _has_worker_failed(worker: JsonObject) -> bool:
    return is_true(worker, "Failed")


def _ended_at(pod: JsonObject) -> str | None:
    return (terminated(pod) or {}).get("finishedAt")


def _end_time(worker: JsonObject) -> str | None:
    status = worker.get("status") or {}
    if status.get("completionTime"):
        return status["completionTime"]
    for kind in ("Complete", "Succeeded", "Failed"):
        found = condition(worker, kind)
        if found is not None and found.get("status") == "True":
            return found.get("lastTransitionTime")
    return None


def _status_text(pod: JsonObject) -> str:
    status = pod.get("status") or {}
    return status.get("message") or status.get("reason") or "no reason given"


def _index(pod: JsonObject) -> tuple[int, str]:
    labels = pod["metadata"].get("labels") or {}
    index = labels.get(LABEL_TRAINING_INDEX, "0")
    return (int(index) if index.isdigit() else 0, _name(pod))


def _name(obj: JsonObject) -> str:
    return obj["metadata"]["name"]
