# SPDX-License-Identifier: Apache-2.0
"""What the end of an attempt makes of its stage: succeeded, retried or failed."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.status import (
    CachedStageStatus,
    ChildRef,
    OutputRef,
    StagePhase,
    StageStatus,
)
from r1reward_api.wire.runconfig import stage_prefix
from r1reward_api.wire.termination import BriefOutput, CachedStage, FailureClass, Termination
from r1reward_operator.observed import WORKER_KINDS, Observed
from r1reward_operator.plan.attempt import Failure
from r1reward_operator.plan.backoff import retry_delay
from r1reward_operator.plan.situation import Situation, Step
from r1reward_operator.plan.times import format_time

_FINAL_REASON = {
    FailureClass.CONFIGURATION: Reason.CONFIGURATION_ERROR,
    FailureClass.PROGRAM: Reason.PROGRAM_ERROR,
    FailureClass.INFRASTRUCTURE: Reason.INFRASTRUCTURE_ERROR,
}


def succeeded(s: Situation, result: Termination, key: str) -> Step:
    """The stage has done its work.

    Args:
        s: the situation.
        result: what its container said.
        key: the stage's key.
    """
    stage = s.status.model_copy(
        update={
            "phase": StagePhase.SUCCEEDED,
            "key": key,
            "cache_hit": result.cache_hit,
            "completion_time": format_time(s.now),
            "running_time": s.status.running_time or format_time(s.now),
            "retry_time": None,
            "outputs": output_refs(s.observed, s.spec, s.stage, key, result.run, result.outputs),
            "children": _worker_only(s.status),
            "pods": {},
            "reason": None,
            "message": None,
        }
    )
    return Step(stage, result=result)


def cached(s: Situation, entry: CachedStageStatus) -> Step:
    """An equal stage was computed before: its result is this stage's."""
    now = format_time(s.now)
    stage = s.status.model_copy(
        update={
            "phase": StagePhase.SUCCEEDED,
            "key": entry.key,
            "cache_hit": True,
            "start_time": s.status.start_time or now,
            "completion_time": now,
            "outputs": dict(entry.outputs),
            "reason": Reason.CACHE_HIT.value,
            "message": None,
        }
    )
    result = Termination(
        stage=s.stage, attempt=s.attempt, outcome="Succeeded", summary=dict(entry.summary)
    )
    return Step(stage, result=result)


def failed(s: Situation, failure: Failure) -> Step:
    """The attempt failed: by its class the stage is retried or given up."""
    policy = s.spec.policy
    program = s.status.program_failures + (failure.failure_class is FailureClass.PROGRAM)
    infrastructure = s.status.infrastructure_failures + (
        failure.failure_class is FailureClass.INFRASTRUCTURE
    )
    stage = s.status.model_copy(
        update={
            "program_failures": program,
            "infrastructure_failures": infrastructure,
            "pods": {},
            "reason": str(failure.reason),
            "message": failure.message,
        }
    )
    given_up = {
        FailureClass.CONFIGURATION: "",
        FailureClass.PROGRAM: f" after {program} failures (policy.backoffLimit)",
        FailureClass.INFRASTRUCTURE: f" after {infrastructure} losses (policy.infrastructureLimit)",
    }[failure.failure_class]
    if (
        failure.failure_class is FailureClass.CONFIGURATION
        or program > policy.backoff_limit
        or infrastructure > policy.infrastructure_limit
    ):
        reason = _FINAL_REASON[failure.failure_class]
        text = f"stage {s.stage} failed{given_up}: {failure.reason}: {failure.message}"
        return given_up_step(s, stage, reason, text)
    delay = retry_delay(s.observed.uid, s.stage, s.attempt, program + infrastructure)
    retrying = stage.model_copy(
        update={
            "phase": StagePhase.RETRYING,
            "retry_time": format_time(s.now + timedelta(seconds=delay)),
            "children": [],
        }
    )
    return Step(retrying, requeue_after=float(delay))


def superseded(s: Situation) -> Step:
    """The attempt could not start, and the runtime has been changed since: the next one begins
    under that of now. It costs nothing; the pause bounds how often two writers of one runtime
    can have attempts made."""
    delay = retry_delay(s.observed.uid, s.stage, s.attempt, 1)
    stage = s.status.model_copy(
        update={
            "phase": StagePhase.RETRYING,
            "retry_time": format_time(s.now + timedelta(seconds=delay)),
            "children": [],
            "pods": {},
            "reason": Reason.RUNTIME_CHANGED.value,
            "message": "it could not start, and the runtime has changed since",
        }
    )
    return Step(stage, requeue_after=float(delay))


def refused(s: Situation, reason: Reason, message: str) -> Step:
    """The spec or the runtime is wrong: nothing is started."""
    stage = s.status.model_copy(update={"reason": reason.value, "message": message})
    return given_up_step(s, stage, reason, message)


def given_up_step(s: Situation, stage: StageStatus, reason: Reason, message: str) -> Step:
    """The stage has failed for good, and the job with it."""
    text = f"{message}; when that is mended, raise spec.rerun to start again"
    return Step(given_up(stage, s.now), failed=(reason, text))


def given_up(stage: StageStatus, now: datetime) -> StageStatus:
    """The stage as it stands when it has failed for good."""
    return stage.model_copy(
        update={
            "phase": StagePhase.FAILED,
            "completion_time": format_time(now),
            "retry_time": None,
            "children": _worker_only(stage),
        }
    )


def cached_status(
    observed: Observed, spec: R1RewardJobSpec, entry: CachedStage
) -> CachedStageStatus:
    """A stage that prepare found computed, as it stands in the status."""
    return CachedStageStatus(
        stage=entry.stage.value,
        key=entry.key,
        outputs=output_refs(observed, spec, entry.stage, entry.key, entry.run, entry.outputs),
        summary=dict(entry.summary),
    )


def output_refs(
    observed: Observed,
    spec: R1RewardJobSpec,
    stage: Stage,
    key: str,
    run: str,
    outputs: Mapping[str, BriefOutput],
) -> dict[str, OutputRef]:
    """Outputs with their URIs in full.

    Args:
        observed: the job.
        spec: its spec.
        stage: whose outputs these are.
        key: that stage's key.
        run: `runs/<job uid>/attempt-<n>` of the run that computed them.
        outputs: by name.
    """
    root = f"{spec.storage.uri.rstrip('/')}/{observed.namespace}/{stage_prefix(stage, key)}"
    return {
        name: OutputRef(uri=f"{root}/{run}/{name}", digest=o.digest, bytes=o.bytes, rows=o.rows)
        for name, o in outputs.items()
    }


def _worker_only(stage: StageStatus) -> list[ChildRef]:
    """A finished worker is kept for its logs; all else goes."""
    return [c for c in stage.children if c.kind in WORKER_KINDS]
