# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan, and says what was in the way."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from r1reward_api.reasons import Reason
from r1reward_operator.kube.errors import (
    AlreadyExists,
    ApiError,
    Forbidden,
    Invalid,
    LeftBehind,
    NotFound,
    OwnedByAnother,
    Unavailable,
)
from r1reward_operator.kube.resources import SECRETS
from r1reward_operator.kube.writer import Writer
from r1reward_operator.observed import Observed
from r1reward_operator.plan.blocked import refusal
from r1reward_operator.plan.model import Blocked, Obstacle, Plan
from r1reward_operator.resources import CHILDREN, R1REWARDJOBS

logger = logging.getLogger(__name__)

_DENIED = re.compile(r"admission webhook|denied request: ")
"""How the API server words that of webhooks, and that of ValidatingAdmissionPolicies, which choose
its status themselves; 422 unless they say otherwise."""
_DENIALS = (400, 401, 413, 422)
_WEBHOOK_DOWN = "failed calling webhook"


@dataclass(frozen=True)
class Applied:
    """What came of a plan.

    Attributes:
        changed: whether an object was made or changed.
        obstacle: what stopped it.
    """

    changed: bool = False
    obstacle: Obstacle | None = None


def apply(writer: Writer, observed: Observed, plan: Plan, new_token: Callable[[], str]) -> Applied:
    """Deletes, creates tokens and ensures objects, in this order, until one is refused.

    Args:
        writer: writes.
        observed: what the plan was made from.
        plan: what to do.
        new_token: gives a random token.

    Raises:
        ApiError: for faults of the connection or of the server, which come again later.
        NotLeader: when this process may not write.
    """
    changed = False
    for wanted in (*plan.tokens, *plan.objects):
        try:
            if wanted["kind"] == "Secret":
                _create(writer, wanted, new_token())
                changed = True
            else:
                # An attempt that another process, perhaps of another version, froze a moment ago
                # may not be known yet; it cannot be frozen anew.
                once = wanted["kind"] == "ControllerRevision"
                live = writer.ensure(CHILDREN[wanted["kind"]], wanted, once)
                changed = changed or _version(observed, wanted) != _version_of(live)
        except (ApiError, OwnedByAnother) as error:
            if isinstance(error, LeftBehind):
                _clear_away(writer, observed, wanted["kind"], error.live)
            obstacle = classify(error, wanted)
            if obstacle is None:
                raise
            return Applied(changed, obstacle)
    return Applied(changed)


def clear(writer: Writer, observed: Observed, plan: Plan) -> bool:
    """Deletes what should go.

    After the status is written, never before: that an object is gone by our own doing must
    stand in the status before anybody can miss it.

    Returns:
        Whether a deletion was begun.
    """
    begun = [
        writer.delete(CHILDREN[d.kind], observed.namespace, d.name, d.uid, "Background")
        for d in plan.deletions
    ]
    return any(begun)


def classify(error: ApiError | OwnedByAnother, wanted: Mapping[str, Any]) -> Obstacle | None:
    """What an error means for the job; None for one that is nobody's business but ours.

    Args:
        error: what the API server said.
        wanted: the object that it was about.
    """
    what = f"{wanted['kind']} {wanted['metadata']['name']}"
    match error:
        case OwnedByAnother():
            return Obstacle(Blocked(Reason.NAME_COLLISION, str(error)))
        case Forbidden():
            if error.is_terminating:
                return None
            reason = Reason.QUOTA if error.is_quota else refusal(error.message)
            return Obstacle(Blocked(reason, f"{what} was refused: {error.message}"))
        case ApiError() if error.status in _DENIALS and _DENIED.search(error.message):
            return Obstacle(Blocked(Reason.ADMISSION, f"{what} was refused: {error.message}"))
        case Invalid():
            text = f"{what} is not valid: {error.message}; correct the runtime or the job"
            return Obstacle(Blocked(Reason.INVALID_SPEC, text), final=True)
        case NotFound():
            text = f"the API server does not know {wanted['kind']}: install what serves it"
            return Obstacle(Blocked(Reason.DEPENDENCY, text))
        case Unavailable() if _WEBHOOK_DOWN in error.message:
            text = f"{what}: an admission webhook does not answer: {error.message}"
            return Obstacle(Blocked(Reason.DEPENDENCY, text))
        case _:
            return None


def _clear_away(writer: Writer, observed: Observed, kind: str, left: Mapping[str, Any]) -> None:
    """Deletes what an earlier job of this name has left.

    The garbage collector does so within seconds, but for ever misses a job that is deleted and
    made again while its watch is away, as when the CRD is changed. Only on behalf of the job that
    the server has now: to a view that lags, the newer job's objects look like the earlier one's.
    """
    if writer.is_live(R1REWARDJOBS, observed.namespace, observed.name, observed.uid):
        name, uid = left["metadata"]["name"], left["metadata"]["uid"]
        writer.delete(CHILDREN[kind], observed.namespace, name, uid)


def _create(writer: Writer, secret: Mapping[str, Any], token: str) -> None:
    try:
        writer.create(SECRETS, {**secret, "stringData": {"token": token}})
    except AlreadyExists:
        # Made by a pass whose status was not written: its token is as good.
        logger.debug("Secret %s is there already", secret["metadata"]["name"])


def _version(observed: Observed, wanted: Mapping[str, Any]) -> str | None:
    live = observed.child(wanted["kind"], wanted["metadata"]["name"])
    return None if live is None else _version_of(live)


def _version_of(obj: Mapping[str, Any]) -> str | None:
    return obj["metadata"].get("resourceVersion")
