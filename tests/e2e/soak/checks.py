# SPDX-License-Identifier: Apache-2.0
"""What must be true of a job that has ended, whatever happened to it. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1reward_api.constants import LABEL_ATTEMPT, LABEL_JOB, LABEL_STAGE
from tests.e2e import watch
from tests.e2e.soak.history import History, Loss

AFTER_SECONDS = 240.0
"""How long after a fault an attempt may end because of it: clients and probes bear with much."""
_LIMITS = {
    "ProgramError": ("programFailures", "backoffLimit"),
    "InfrastructureError": ("infrastructureFailures", "infrastructureLimit"),
}
_WORKERS = ("Job", "PyTorchJob")


@dataclass(frozen=True)
class Injected:
    """A fault that happened.

    Attributes:
        fault: its name.
        job: whom it hit; None: everybody.
        pod: which pod, if one.
        begin, end: seconds of the run.
        reasons: by which attempts may end because of it.
    """

    fault: str
    job: str | None
    pod: str | None
    begin: float
    end: float
    reasons: Collection[str]


def ended(status: Mapping[str, Any]) -> str | None:
    """`Succeeded`, `Failed`, or None while the job goes on."""
    return next((k for k in ("Succeeded", "Failed") if watch.is_true(status, k)), None)


def causes(loss: Loss, job: str, faults: Iterable[Injected]) -> list[Injected]:
    """The faults that a lost attempt may be due to."""
    return [
        f
        for f in faults
        if f.job in (None, job)
        and f.begin <= loss.at
        and loss.since <= f.end + AFTER_SECONDS
        and (f.reasons if loss.reason is None else loss.reason in f.reasons)
    ]


def problems(
    job: Mapping[str, Any], status: Mapping[str, Any], seen: History, faults: Sequence[Injected]
) -> list[str]:
    """What is wrong with a job that was expected to end, in words.

    Args:
        job: as it was applied.
        status: its last one.
        seen: of it.
        faults: all that happened.
    """
    name = job["metadata"]["name"]
    found = [f"{name}: {problem}" for problem in seen.problems]
    for loss in seen.losses:
        if not causes(loss, name, faults):
            found.append(
                f"{name}: no fault explains why an attempt of {loss.stage} ended: "
                f"{loss.reason}: {loss.message}"
            )
    match ended(status):
        case None:
            found.append(f"{name}: has not ended: {_brief(status)}")
        case "Succeeded":
            found += [f"{name}: Succeeded, but {p}" for p in _not_whole(job, status)]
        case _:
            found += [f"{name}: Failed, but {p}" for p in _untrue(job, status)]
    return found


def _not_whole(job: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    found = [
        f"stage {s['name']} is {s['phase']}"
        for s in status.get("stages", [])
        if s["phase"] != "Succeeded"
    ]
    if not watch.is_true(status, "Ready"):
        found.append("Ready is not True")
    for kind in ("Failed", "Blocked", "Suspended", "Reconciling", "Stalled"):
        if watch.is_true(status, kind):
            found.append(f"{kind} is True")
    if "report" not in {a["name"] for a in status.get("artifacts", [])}:
        found.append("there is no report")
    return found


def _untrue(job: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    """A failure is true when the limit that it names is exceeded."""
    failed = watch.condition(status, "Failed") or {}
    reason = failed.get("reason", "")
    if reason not in _LIMITS:
        return [f"no fault makes a {reason}: {failed.get('message')}"]
    counter, limit = _LIMITS[reason]
    allowed = job["spec"]["policy"][limit]
    stages = status.get("stages", [])
    if not any(s.get(counter, 0) > allowed for s in stages if s["phase"] == "Failed"):
        return [f"{reason} without more than policy.{limit} ({allowed}) {counter}"]
    return []


def held(objects: Iterable[Mapping[str, Any]], status: Mapping[str, Any]) -> list[str]:
    """What a job that has ended still holds, as `Kind/name`.

    Its stages' last workers stay for their logs, with pods that have ended and the names that
    the training operator gave them.

    Args:
        objects: whose name begins with the job's.
        status: of the job.
    """
    attempts = {s["name"]: str(s.get("attempt", 0)) for s in status.get("stages", [])}
    return sorted(_name(o) for o in objects if not _may_stay(o, attempts))


def _may_stay(obj: Mapping[str, Any], attempts: Mapping[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    last = labels.get(LABEL_ATTEMPT) == attempts.get(labels.get(LABEL_STAGE, ""))
    match obj["kind"]:
        case "Pod":
            return last and obj["status"].get("phase") in ("Succeeded", "Failed")
        case kind if kind in _WORKERS:
            return last
        case "Service":
            return LABEL_JOB not in labels
        case _:
            return False


def names(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """The objects as `Kind/name`."""
    return sorted(_name(o) for o in objects)


def _name(obj: Mapping[str, Any]) -> str:
    return f"{obj['kind']}/{obj['metadata']['name']}"


def _brief(status: Mapping[str, Any]) -> str:
    blocked = watch.condition(status, "Blocked") or {}
    why = f", blocked: {blocked.get('reason')}" if blocked.get("status") == "True" else ""
    return f"{status.get('stage')} {status.get('phase')}{why}"
