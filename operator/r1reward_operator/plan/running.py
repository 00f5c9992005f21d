# SPDX-License-Identifier: Apache-2.0
"""One attempt at work: its objects are made in order, its end is noticed, its deadlines kept."""

from r1reward_api.names import attempt_token_secret, frozen_revision
from r1reward_api.reasons import Reason
from r1reward_api.resource.status import ChildRef, ConditionType, StagePhase
from r1reward_api.wire.termination import FailureClass
from r1reward_operator.observed import WORKER_ROLES, role_of
from r1reward_operator.plan import outcome
from r1reward_operator.plan.attempt import (
    Evidence,
    Failure,
    Success,
    Waiting,
    ending,
    is_running,
    server_failure,
)
from r1reward_operator.plan.blocked import (
    blocked_by_pods,
    blocked_by_silence,
    blocked_by_storage,
    blocked_by_workloads,
    not_served,
    podless_seconds,
    untaken_seconds,
)
from r1reward_operator.plan.builders.build import Build
from r1reward_operator.plan.builders.token import token_secret
from r1reward_operator.plan.freeze import Frozen, freeze, is_ours, thaw
from r1reward_operator.plan.in_force import is_superseded, key_in_force, runtime_in_force
from r1reward_operator.plan.model import Blocked, JsonObject
from r1reward_operator.plan.render import run_config
from r1reward_operator.plan.situation import Situation, Step
from r1reward_operator.plan.times import format_time, seconds_since

RUNNING_POLL_SECONDS = 30.0
"""How often a running stage is looked at for its printed progress and its heartbeat."""

_HEALED_BY_RUNTIME = frozenset(
    {Reason.IMAGE_PULL, Reason.CONTAINER_CONFIG, Reason.CRASH_LOOP, Reason.UNSCHEDULABLE,
     Reason.STORAGE, Reason.QUOTA, Reason.ADMISSION}
)  # fmt: skip
"""What may be in the way because of the runtime under which the attempt began."""


def work(s: Situation) -> Step:
    """One step of a started attempt."""
    # 1. Freeze: the ControllerRevision comes first, and all else from it.
    revision = s.observed.child("ControllerRevision", _revision_name(s))
    if revision is None:
        if _was_seen(s, "ControllerRevision", _revision_name(s)):
            return outcome.failed(s, _lost(f"ControllerRevision {_revision_name(s)} was deleted"))
        return _freeze(s)
    if not is_ours(revision, s.observed.namespace, s.observed.uid):
        return outcome.failed(s, _lost(f"ControllerRevision {_revision_name(s)} was replaced"))
    frozen = thaw(revision, s.spec, s.stage)

    # 2. Has the attempt ended, or used up its time?
    worker = s.observed.child(s.worker_kind, s.worker_name)
    pods = _worker_pods(s)
    end = ending(
        Evidence(
            stage=s.stage,
            attempt=s.attempt,
            worker=worker,
            worker_seen=_was_seen(s, s.worker_kind, s.worker_name),
            pods=pods,
            recorded=s.status.pods,
        ),
        s.now,
    )
    match end:
        case Success(termination=result):
            key = result.key or frozen.key
            if key is None:
                text = "prepare succeeded without naming its key; use images of one release"
                return outcome.failed(
                    s, Failure(FailureClass.CONFIGURATION, Reason.CONFIGURATION_ERROR, text)
                )
            return outcome.succeeded(s, result, key)
        case Failure():
            return outcome.failed(s, end)
    running = _is_running(frozen, pods)
    if not running and _cannot_start(s) and is_superseded(s, revision):
        return outcome.superseded(s)
    blocked = _blocked(s, frozen, worker)
    late, left = _deadline(s, frozen, pods, running, blocked)
    failure = late or server_failure(_server_pods(s), s.stage, s.attempt)
    if failure is not None:
        return outcome.failed(s, failure)

    # 3. Services first: the worker is made when all of them are ready.
    objects = list(frozen.services)
    ready = all(_is_ready(s.observed.child("Deployment", _name(d)), d) for d in frozen.deployments)
    made = worker is not None or _was_noted(s, s.worker_kind, s.worker_name)
    if worker is None and (ready or made):
        objects.append(frozen.worker)
        made = True

    # 4. What was seen is written down, so that it is missed when it goes.
    tokens = _tokens(s, frozen, revision, _was_noted(s, "Secret", _token_name(s)))
    stage = s.status.model_copy(
        update={
            "children": _children(s, frozen, made),
            "pods": {**s.status.pods, **{_name(p): p["metadata"]["uid"] for p in pods}},
        }
    )
    if running and stage.phase is StagePhase.STARTING:
        stage = stage.model_copy(
            update={
                "phase": StagePhase.RUNNING,
                "running_time": format_time(s.now),
                # From now on the key stands: results and checkpoints lie under it.
                "key": frozen.key,
            }
        )
    step = Step(stage, tokens=tokens, objects=tuple(objects), blocked=blocked)
    settle = end.seconds if isinstance(end, Waiting) else None
    podless = None if worker is None else podless_seconds(worker, pods, s.now)
    untaken = (untaken_seconds(p, s.now) for p in s.observed.pods_of(s.stage, s.attempt))
    for seconds in (podless, *untaken):
        if seconds is not None and seconds > 0:
            step = step.sooner(seconds)
    return step.sooner(RUNNING_POLL_SECONDS).sooner(left).sooner(settle)


def _cannot_start(s: Situation) -> bool:
    """Whether the user has been told of what a change of the runtime can mend, before the attempt
    has done any work."""
    if s.status.phase is not StagePhase.STARTING:
        return False
    told = next((c for c in s.observed.status.conditions if c.type == ConditionType.BLOCKED), None)
    return told is not None and told.status == "True" and told.reason in _HEALED_BY_RUNTIME


def _freeze(s: Situation) -> Step:
    runtime = runtime_in_force(s)
    config = run_config(
        s.identity,
        s.spec,
        runtime,
        s.stage,
        s.attempt,
        key_in_force(s, runtime),
        s.stages,
        s.settings.progress_url,
    )
    revision = freeze(Build(runtime, config))
    ref = ChildRef(kind="ControllerRevision", name=_revision_name(s))
    stage = s.status.model_copy(update={"children": [ref]})
    return Step(stage, objects=(revision,))


def _deadline(
    s: Situation,
    frozen: Frozen,
    pods: tuple[JsonObject, ...],
    running: bool,
    blocked: Blocked | None,
) -> tuple[Failure | None, float | None]:
    """A deadline that has passed, or the seconds until the next one."""
    policy = s.spec.policy
    if s.status.running_time is not None:
        if policy.active_deadline_seconds is None:
            return None, None
        left = policy.active_deadline_seconds - _elapsed(s, s.status.running_time)
        text = (
            "the attempt ran longer than policy.activeDeadlineSeconds "
            f"({policy.active_deadline_seconds})"
        )
        failure = Failure(FailureClass.PROGRAM, Reason.ACTIVE_DEADLINE_EXCEEDED, text)
    else:
        # Only an attempt that holds something is hurried: a queued one holds nothing.
        holds = _holding_seconds(s, frozen, pods)
        if running or holds is None:
            return None, None
        left = policy.start_deadline_seconds - holds
        text = (
            f"the worker did not start within policy.startDeadlineSeconds "
            f"({policy.start_deadline_seconds}); its services were let go"
        )
        if blocked is not None:
            text += f"; in the way was {blocked.reason}: {blocked.message}"
        failure = Failure(FailureClass.INFRASTRUCTURE, Reason.START_DEADLINE_EXCEEDED, text)
    return (failure, None) if left <= 0 else (None, left)


def _holding_seconds(s: Situation, frozen: Frozen, pods: tuple[JsonObject, ...]) -> float | None:
    """For how long the attempt has had servers or a running pod; None while it has none."""
    servers = [s.observed.child("Deployment", _name(d)) for d in frozen.deployments]
    since = [d["metadata"].get("creationTimestamp") for d in servers if d is not None]
    since += [
        p["status"].get("startTime") or p["metadata"].get("creationTimestamp")
        for p in pods
        if is_running(p)
    ]
    return max((_elapsed(s, begin or s.status.attempt_time) for begin in since), default=None)


def _elapsed(s: Situation, since: str | None) -> float:
    return seconds_since(since, s.now) or 0.0


def _blocked(s: Situation, frozen: Frozen, worker: JsonObject | None) -> Blocked | None:
    if worker is None and s.worker_kind in s.observed.absent:
        return not_served(s.worker_kind)
    everything = s.observed.pods_of(s.stage, s.attempt)
    servers = [s.observed.child("Deployment", _name(d)) for d in frozen.deployments]
    workloads = [w for w in (*servers, worker) if w is not None]
    return (
        blocked_by_pods(everything, s.now)
        or blocked_by_workloads(workloads, everything, s.now)
        or blocked_by_storage(s.observed.status.progress, s.stage.value, s.attempt)
        or blocked_by_silence(
            s.observed.status.progress,
            s.stage.value,
            s.attempt,
            s.now,
            s.observed.listening_since,
        )
    )


def _tokens(
    s: Situation, frozen: Frozen, revision: JsonObject, made: bool
) -> tuple[JsonObject, ...]:
    """The token's Secret, once: it cannot be read back, so the status remembers it."""
    if made or not frozen.deployments:
        return ()
    return (token_secret(_token_name(s), revision),)


def _children(s: Situation, frozen: Frozen, worker_made: bool) -> list[ChildRef]:
    names = [("ControllerRevision", _revision_name(s))]
    if frozen.deployments:
        names.append(("Secret", _token_name(s)))
    names += [(o["kind"], _name(o)) for o in frozen.services]
    if worker_made:
        names.append((s.worker_kind, s.worker_name))
    known = {(c.kind, c.name): c.uid for c in s.status.children}
    refs = []
    for kind, name in names:
        child = s.observed.child(kind, name)
        uid = child["metadata"]["uid"] if child is not None else known.get((kind, name))
        refs.append(ChildRef(kind=kind, name=name, uid=uid))
    return refs


def _worker_pods(s: Situation) -> tuple[JsonObject, ...]:
    roles = {r.value for r in WORKER_ROLES}
    pods = s.observed.pods_of(s.stage, s.attempt)
    return tuple(p for p in pods if role_of(p) in roles)


def _server_pods(s: Situation) -> tuple[JsonObject, ...]:
    workers = {_name(p) for p in _worker_pods(s)}
    return tuple(p for p in s.observed.pods_of(s.stage, s.attempt) if _name(p) not in workers)


def _is_running(frozen: Frozen, pods: tuple[JsonObject, ...]) -> bool:
    return len(pods) >= frozen.workers and all(is_running(p) for p in pods)


def _is_ready(live: JsonObject | None, wanted: JsonObject) -> bool:
    if live is None:
        return False
    status = live.get("status") or {}
    replicas = wanted["spec"]["replicas"]
    return (
        live["spec"].get("replicas") == replicas
        and status.get("observedGeneration", 0) >= live["metadata"].get("generation", 1)
        and status.get("updatedReplicas", 0) >= replicas
        and status.get("readyReplicas", 0) >= replicas
    )


def _was_noted(s: Situation, kind: str, name: str) -> bool:
    return any((c.kind, c.name) == (kind, name) for c in s.status.children)


def _was_seen(s: Situation, kind: str, name: str) -> bool:
    return any((c.kind, c.name) == (kind, name) and c.uid for c in s.status.children)


def _lost(text: str) -> Failure:
    return Failure(FailureClass.INFRASTRUCTURE, Reason.POD_LOST, text)


def _revision_name(s: Situation) -> str:
    return frozen_revision(s.observed.name, s.stage, s.attempt)


def _token_name(s: Situation) -> str:
    return attempt_token_secret(s.observed.name, s.observed.uid, s.stage, s.attempt)


def _name(obj: JsonObject) -> str:
    return obj["metadata"]["name"]
