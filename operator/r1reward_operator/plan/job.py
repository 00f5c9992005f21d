# SPDX-License-Identifier: Apache-2.0
"""The plan for one job, as a story."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from r1reward_api import gates
from r1reward_api.constants import STAGES, Stage
from r1reward_api.reasons import Reason
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.status import (
    Condition,
    ConditionType,
    R1RewardJobStatus,
    StagePhase,
    StageStatus,
)
from r1reward_api.stages import stages_of
from r1reward_operator.observed import Observed
from r1reward_operator.plan import report
from r1reward_operator.plan.conditions import Verdict, conditions
from r1reward_operator.plan.leftovers import leftovers
from r1reward_operator.plan.model import Blocked, Obstacle, Plan, Settings
from r1reward_operator.plan.news import news
from r1reward_operator.plan.outcome import cached_status, given_up, refused
from r1reward_operator.plan.situation import Situation, Step
from r1reward_operator.plan.stage import step, suspended
from r1reward_operator.plan.times import format_time, seconds_since

_AT_WORK = (
    StagePhase.STARTING,
    StagePhase.RUNNING,
    StagePhase.RETRYING,
    StagePhase.SUSPENDED,
)


def plan(
    observed: Observed, now: datetime, settings: Settings, obstacle: Obstacle | None = None
) -> Plan:
    """What should be done for a job. The same arguments give the same plan.

    Args:
        observed: all that is known of the job.
        now: the time, in UTC.
        settings: the operator's.
        obstacle: why the plan for the same observation could not be carried out.
    """
    # 1. A job on its way out: the garbage collector takes its children.
    if observed.deleting:
        return Plan()

    # 2. A spec that fits no model starts nothing. CEL refuses such specs; one can
    #    be left from before an upgrade. One of a newer version waits for its operator.
    spec = observed.spec
    if spec is None:
        return _newer(observed, now) if observed.newer else _invalid(observed, now)

    # 3. A failed job whose spec.rerun has grown starts again.
    status = _rerun(observed.status, spec)
    stages = _stages(status, spec)

    # 4. A finished job holds nothing, and goes after its TTL.
    failed = _failed(status)
    current = next((n for n, st in stages.items() if st.phase is not StagePhase.SUCCEEDED), None)
    if failed is not None or current is None:
        return _finished(observed, spec, status, stages, failed, now)

    # 5. spec.suspend stops the current stage; else the stage takes its next step.
    situation = Situation(observed, spec, stages, current, now, settings)
    taken = _step(situation, obstacle)
    stages = {**stages, current: taken.stage}

    # 6. All that is learnt goes into one status.
    after = _status(observed, spec, status, stages, current, taken, now)

    # 7. What belongs to no running attempt goes.
    over = taken.failed is not None
    deletions, wait = leftovers(observed, stages, over, now)
    return Plan(
        deletions=deletions,
        tokens=taken.tokens,
        objects=taken.objects,
        status=_wire(after),
        events=news(observed.status, after),
        requeue_after=_sooner(taken.requeue_after, wait),
    )


def _step(situation: Situation, obstacle: Obstacle | None) -> Step:
    """The current stage's step; with an obstacle, what that makes of the stage."""
    if situation.spec.suspend:
        return suspended(situation)
    if obstacle is None:
        return step(situation)
    if obstacle.final:
        return refused(situation, obstacle.blocked.reason, obstacle.blocked.message)
    return Step(situation.status, blocked=obstacle.blocked)


def _status(
    observed: Observed,
    spec: R1RewardJobSpec,
    status: R1RewardJobStatus,
    stages: Mapping[Stage, StageStatus],
    current: Stage,
    taken: Step,
    now: datetime,
) -> R1RewardJobStatus:
    stage = stages[current]
    failed = (str(taken.failed[0]), taken.failed[1]) if taken.failed else None
    done = all(s.phase is StagePhase.SUCCEEDED for s in stages.values())
    summary = dict(status.summary)
    if taken.result is not None:
        summary = report.with_figures(summary, current, taken.result.summary)
    verdict = Verdict(
        text=_text(None if done else _shown(stages)),
        succeeded=done,
        failed=failed,
        suspended=spec.suspend,
        blocked=taken.blocked,
        started=stage.attempt > 0 or current is not Stage.PREPARE,
        gated=bool(spec.evaluate.gates),
        gates=gates.read(summary),
    )
    progress = report.current(status.progress, stage)
    running = stage.phase is StagePhase.RUNNING
    update: dict[str, Any] = {}
    if taken.result is not None and current is Stage.PREPARE:
        update["code"] = dict(taken.result.code)
        update["cached"] = [cached_status(observed, spec, c) for c in taken.result.cached]
    return _told(observed, spec, status, stages, verdict, now).model_copy(
        update={
            **update,
            "summary": report.printed(summary, progress, running),
            "checkpoint": report.checkpoint(status.checkpoint, progress),
        }
    )


def _finished(
    observed: Observed,
    spec: R1RewardJobSpec,
    status: R1RewardJobStatus,
    stages: Mapping[Stage, StageStatus],
    failed: tuple[str, str] | None,
    now: datetime,
) -> Plan:
    verdict = Verdict(
        text=_text(None if failed is None else _shown(stages)),
        succeeded=failed is None,
        failed=failed,
        gated=bool(spec.evaluate.gates),
        gates=gates.read(status.summary),
    )
    after = _told(observed, spec, status, stages, verdict, now)
    after = after.model_copy(update={"summary": report.printed(status.summary, None, False)})
    deletions, wait = leftovers(observed, stages, True, now)
    ttl = spec.policy.ttl_seconds_after_finished
    left = None
    if ttl is not None:
        left = max(0.0, ttl - (seconds_since(after.completion_time, now) or 0.0))
    return Plan(
        deletions=deletions,
        status=_wire(after),
        events=news(observed.status, after),
        delete_job=left == 0.0,
        requeue_after=_sooner(left or None, wait),
    )


def _newer(observed: Observed, now: datetime) -> Plan:
    """Says so and touches nothing: what runs goes on, what has ended stays ended."""
    status = observed.status
    if status.completion_time is not None:
        return Plan()
    before = _by_type(status)
    suspended = before.get(ConditionType.SUSPENDED)
    verdict = Verdict(
        text=observed.problem,
        suspended=suspended is not None and suspended.status == "True",
        blocked=Blocked(Reason.DEPENDENCY, observed.problem),
        gated=ConditionType.GATES_PASSED in before,
        gates=gates.read(status.summary),
    )
    after = status.model_copy(
        update={
            "conditions": conditions(verdict, before, observed.generation, now),
            "observed_generation": observed.generation,
            "phase": status.phase if verdict.suspended else ConditionType.BLOCKED.value,
        }
    )
    return Plan(status=_wire(after), events=news(status, after))


def _invalid(observed: Observed, now: datetime) -> Plan:
    """A job that has ended stays as it is; one that was at work has failed, and holds nothing."""
    before = observed.status
    over = before.completion_time is not None
    stages = {
        Stage(s.name): given_up(s, now) if s.phase in _AT_WORK and not over else s
        for s in before.stages
    }
    deletions, wait = leftovers(observed, stages, True, now)
    if over:
        return Plan(deletions=deletions, requeue_after=wait)
    known = _by_type(before)
    verdict = Verdict(
        text="",
        failed=(Reason.INVALID_SPEC, observed.problem),
        gated=ConditionType.GATES_PASSED in known,
        gates=gates.read(before.summary),
    )
    after = before.model_copy(
        update={
            "conditions": conditions(verdict, known, observed.generation, now),
            "observed_generation": observed.generation,
            "phase": StagePhase.FAILED.value,
            "completion_time": format_time(now),
            "stages": list(stages.values()),
        }
    )
    return Plan(
        deletions=deletions, status=_wire(after), events=news(before, after), requeue_after=wait
    )


def _told(
    observed: Observed,
    spec: R1RewardJobSpec,
    status: R1RewardJobStatus,
    stages: Mapping[Stage, StageStatus],
    verdict: Verdict,
    now: datetime,
) -> R1RewardJobStatus:
    """The status that a verdict makes."""
    over = verdict.succeeded or verdict.failed is not None
    shown = _shown(stages)
    # Before its first stage has begun (suspended, or without its runtime) a job's spec may
    # still change.
    begun = status.start_time is not None or any(
        s.phase is not StagePhase.PENDING and s.start_time for s in stages.values()
    )
    return status.model_copy(
        update={
            "observed_generation": observed.generation,
            "conditions": conditions(verdict, _by_type(status), observed.generation, now),
            "start_time": (status.start_time or format_time(now)) if begun else None,
            "completion_time": (status.completion_time or format_time(now)) if over else None,
            "stage": shown.name,
            "phase": _phase(verdict, shown),
            "rerun": spec.rerun,
            "stages": list(stages.values()),
            "artifacts": report.artifacts(stages),
        }
    )


def _phase(verdict: Verdict, shown: StageStatus) -> str:
    if verdict.failed is not None:
        return StagePhase.FAILED.value
    if verdict.succeeded:
        return StagePhase.SUCCEEDED.value
    if verdict.suspended:
        return StagePhase.SUSPENDED.value
    if verdict.blocked is not None:
        return ConditionType.BLOCKED.value
    return shown.phase.value


def _stages(status: R1RewardJobStatus, spec: R1RewardJobSpec) -> dict[Stage, StageStatus]:
    known = {s.name: s for s in status.stages}
    return {s: known.get(s.value, StageStatus(name=s.value)) for s in stages_of(spec)}


def _rerun(status: R1RewardJobStatus, spec: R1RewardJobSpec) -> R1RewardJobStatus:
    """All stages start again: prepare looks at the data and the code anew, and whatever
    was already computed comes from the cache."""
    if _failed(status) is None or spec.rerun <= (status.rerun or 0):
        return status
    # The attempts go on counting, so that no name comes twice.
    stages = [StageStatus(name=s.name, attempt=s.attempt) for s in status.stages]
    update = {"stages": stages, "completion_time": None, "cached": [], "code": {}, "summary": {}}
    return status.model_copy(
        update={**update, "conditions": [c for c in status.conditions if not _is_failure(c)]}
    )


def _is_failure(condition: Condition) -> bool:
    return condition.type in (ConditionType.FAILED, ConditionType.STALLED)


def _failed(status: R1RewardJobStatus) -> tuple[str, str] | None:
    found = _by_type(status).get(ConditionType.FAILED)
    if found is None or found.status != "True":
        return None
    return found.reason, found.message


def _shown(stages: Mapping[Stage, StageStatus]) -> StageStatus:
    """The stage that the status speaks of: the first that is not done, or the last."""
    for stage in STAGES:
        if stage in stages and stages[stage].phase is not StagePhase.SUCCEEDED:
            return stages[stage]
    return list(stages.values())[-1]


def _text(stage: StageStatus | None) -> str:
    if stage is None:
        return "all stages have finished"
    attempt = f", attempt {stage.attempt}" if stage.attempt else ""
    return f"stage {stage.name} is {stage.phase}{attempt}"


def _by_type(status: R1RewardJobStatus) -> dict[str, Condition]:
    return {c.type: c for c in status.conditions}


def _sooner(*seconds: float | None) -> float | None:
    given = [s for s in seconds if s is not None]
    return min(given) if given else None


def _wire(status: R1RewardJobStatus) -> dict[str, Any]:
    wire = status.to_wire()
    wire.pop("progress", None)
    return wire
