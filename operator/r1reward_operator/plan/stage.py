# SPDX-License-Identifier: Apache-2.0
"""The state machine of one stage.

    Pending -> Starting -> Running -> Succeeded
                  |           |
                  +--> Retrying <--+--> Failed
                         |
                         +--> Starting, as the next attempt

An attempt is written into the status before anything is made for it: a writer
whose view is old is refused there, before it has touched an object.
"""

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_api.resource.status import StagePhase
from r1reward_operator.plan import outcome
from r1reward_operator.plan.blocked import blocked_by_old_pods, not_served
from r1reward_operator.plan.effective import Refused
from r1reward_operator.plan.in_force import Missing, key_in_force, runtime_in_force
from r1reward_operator.plan.model import Blocked, JsonObject
from r1reward_operator.plan.pods import handing_over, lingering
from r1reward_operator.plan.running import work
from r1reward_operator.plan.situation import Situation, Step
from r1reward_operator.plan.times import format_time, parse_time

_POLL_SECONDS = 30.0


def step(s: Situation) -> Step:
    """The stage's next step."""
    try:
        match s.status.phase:
            case StagePhase.PENDING:
                return _pending(s)
            case StagePhase.STARTING | StagePhase.RUNNING:
                return work(s)
            case StagePhase.RETRYING | StagePhase.SUSPENDED:
                return _retrying(s)
            case StagePhase.SUCCEEDED | StagePhase.FAILED:
                return Step(s.status)
    except Missing as error:
        blocked = Blocked(Reason.DEPENDENCY, str(error))
        return Step(s.status, blocked=blocked, requeue_after=_POLL_SECONDS)
    except Refused as error:
        return outcome.refused(s, error.reason, error.message)


def suspended(s: Situation) -> Step:
    """The stage after spec.suspend: its objects go, its checkpoints stay in storage."""
    if s.status.phase in (StagePhase.PENDING, StagePhase.SUSPENDED):
        return Step(s.status)
    update = {
        "phase": StagePhase.SUSPENDED,
        "retry_time": None,
        "running_time": None,
        "children": [],
        "pods": {},
    }
    return Step(s.status.model_copy(update=update))


def _pending(s: Situation) -> Step:
    """Takes the result from the cache, or begins the first attempt."""
    if old := lingering(s.observed, s.stage, s.attempt, s.now):
        return _waiting_for(s, old)
    runtime = runtime_in_force(s)
    if s.stage is not Stage.PREPARE:
        key = key_in_force(s, runtime)
        for entry in s.observed.status.cached:
            if (entry.stage, entry.key) == (s.stage.value, key):
                return outcome.cached(s, entry)
    if old := handing_over(s.observed, s.stage, s.now):
        return _waiting_for(s, old)
    return _begin(s)


def _retrying(s: Situation) -> Step:
    """Begins the next attempt when the last one's pods are gone and its backoff is over."""
    if old := lingering(s.observed, s.stage, s.attempt, s.now):
        return _waiting_for(s, old)
    if s.status.retry_time is not None:
        left = (parse_time(s.status.retry_time) - s.now).total_seconds()
        if left > 0:
            return Step(s.status).sooner(left)
    return _begin(s)


def _waiting_for(s: Situation, pods: list[JsonObject]) -> Step:
    """Nothing is begun before these pods are gone."""
    ends = [s.status.retry_time, *(st.completion_time for st in s.stages.values())]
    released = max((parse_time(end) for end in ends if end is not None), default=None)
    blocked, left = blocked_by_old_pods(pods, released, s.now)
    return Step(s.status, blocked=blocked, requeue_after=_POLL_SECONDS).sooner(left)


def _begin(s: Situation) -> Step:
    """Writes the next attempt down; nothing is made before that is written.

    Raises:
        Missing: when the attempt's kind of worker or its runtime is not there yet.
        Refused: when the job asks for what the runtime does not give.
    """
    if s.worker_kind in s.observed.absent:
        raise Missing(not_served(s.worker_kind).message)
    runtime_in_force(s)  # an attempt without one would do nothing but count as begun
    now = format_time(s.now)
    update = {
        "phase": StagePhase.STARTING,
        "attempt": s.attempt + 1,
        "start_time": s.status.start_time or now,
        "attempt_time": now,
        "running_time": None,
        "retry_time": None,
        "children": [],
        "pods": {},
    }
    return Step(s.status.model_copy(update=update))
