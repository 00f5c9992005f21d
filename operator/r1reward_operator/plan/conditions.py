# SPDX-License-Identifier: Apache-2.0
"""The conditions of a job, for people, `kubectl wait` and kstatus.

`Succeeded`, `Failed`, `Suspended` and `Blocked` say what is; `Ready`, `Reconciling` and
`Stalled` say it again in the words of kstatus. `Stalled` is True only with `Failed`:
waiting is not failing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from r1reward_api.reasons import Reason
from r1reward_api.resource.status import Condition, ConditionType
from r1reward_operator.plan.model import Blocked
from r1reward_operator.plan.times import format_time


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a job.

    Attributes:
        text: what it does, in words.
        succeeded: whether all stages are done.
        failed: why it was given up.
        suspended: whether spec.suspend holds it.
        blocked: what is in the way.
        started: whether a stage has begun.
        gated: whether the job has gates.
        gates: whether they were passed, and what failed; None before it is known.
    """

    text: str
    succeeded: bool = False
    failed: tuple[str, str] | None = None
    suspended: bool = False
    blocked: Blocked | None = None
    started: bool = True
    gated: bool = False
    gates: tuple[bool, str] | None = None


def conditions(
    verdict: Verdict, before: Mapping[str, Condition], generation: int, now: datetime
) -> list[Condition]:
    """All conditions; a transition time moves only when the status does.

    Args:
        verdict: what is to be said.
        before: the conditions so far, by type.
        generation: the spec's generation that the verdict speaks of.
        now: the time.
    """
    told = _told(verdict, before)
    made = []
    for kind, (status, reason, message) in told.items():
        old = before.get(kind.value)
        since = old.last_transition_time if old and old.status == status else format_time(now)
        made.append(
            Condition(
                type=kind.value,
                status=status,
                reason=str(reason),
                message=message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return made


_Told = tuple[Literal["True", "False", "Unknown"], str, str]


def _told(v: Verdict, before: Mapping[str, Condition]) -> dict[ConditionType, _Told]:
    doing, text = _doing(v)
    over = v.succeeded or v.failed is not None
    blocked = v.blocked if not over and not v.suspended else None
    failed: _Told = ("False", Reason.NOT_FAILED, "")
    if v.failed is not None:
        failed = ("True", v.failed[0], v.failed[1])
    return {
        ConditionType.SUCCEEDED: (_status(v.succeeded), doing, text),
        ConditionType.FAILED: failed,
        ConditionType.SUSPENDED: _suspension(v, before),
        ConditionType.BLOCKED: (
            ("False", Reason.NOT_BLOCKED, "")
            if blocked is None
            else ("True", blocked.reason, blocked.message)
        ),
        ConditionType.READY: (_status(v.succeeded), doing, text),
        ConditionType.RECONCILING: (_status(not over), doing, text),
        ConditionType.STALLED: failed,
        **({ConditionType.GATES_PASSED: _gates(v.gates)} if v.gated else {}),
    }


def _gates(gates: tuple[bool, str] | None) -> _Told:
    if gates is None:
        return "Unknown", Reason.PENDING, "not evaluated yet"
    passed, text = gates
    if passed:
        return "True", Reason.GATES_MET, "the evaluated weights reach all of evaluate.gates"
    return "False", Reason.GATES_NOT_MET, text


def _doing(v: Verdict) -> tuple[str, str]:
    """The reason and message that most conditions share."""
    if v.failed is not None:
        return v.failed
    if v.succeeded:
        return Reason.COMPLETED, v.text
    if v.suspended:
        return Reason.SUSPENDED, v.text
    if v.blocked is not None:
        return v.blocked.reason, v.blocked.message
    return (Reason.RUNNING if v.started else Reason.PENDING), v.text


def _suspension(v: Verdict, before: Mapping[str, Condition]) -> _Told:
    if v.suspended:
        return "True", Reason.SUSPENDED, "spec.suspend is true"
    old = before.get(ConditionType.SUSPENDED)
    was = old is not None and (old.status == "True" or old.reason == Reason.RESUMED)
    return "False", Reason.RESUMED if was else Reason.RUNNING, ""


def _status(value: bool) -> Literal["True", "False"]:
    return "True" if value else "False"
