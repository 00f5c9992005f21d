# SPDX-License-Identifier: Apache-2.0
"""Which pods are in the way of the next attempt or stage."""

from datetime import datetime, timedelta

from r1reward_api.constants import Stage
from r1reward_operator.observed import Observed, attempt_of
from r1reward_operator.plan.model import JsonObject
from r1reward_operator.plan.times import parse_time, seconds_since

UNREACHABLE_SECONDS = 120.0
"""A pod that should have been gone this long sits on a node that does not answer. It is not
waited for: its name carries the attempt, and storage refuses the writes of an old attempt."""


def lingering(observed: Observed, stage: Stage, attempt: int, now: datetime) -> list[JsonObject]:
    """Pods of this stage's attempts up to `attempt` that still hold something."""
    return [
        pod
        for pod in observed.pods
        if _is_old(pod, stage, attempt) and not is_unreachable(pod, now)
    ]


def handing_over(observed: Observed, stage: Stage, now: datetime) -> list[JsonObject]:
    """Pods of other stages that still run: servers on their way out hold the GPUs that this
    stage's servers will be placed on."""
    return [
        pod
        for pod in observed.pods
        if (found := attempt_of(pod)) is not None
        and found[0] != stage.value
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        and not is_unreachable(pod, now)
    ]


def _is_old(pod: JsonObject, stage: Stage, attempt: int) -> bool:
    found = attempt_of(pod)
    return found is not None and found[0] == stage.value and found[1] <= attempt


def is_unreachable(pod: JsonObject, now: datetime) -> bool:
    """Whether a pod should have been gone for so long that its node must be lost."""
    # The deletion time is the end of the grace period.
    overdue = seconds_since(pod["metadata"].get("deletionTimestamp"), now)
    return overdue is not None and overdue > UNREACHABLE_SECONDS


def deletion_began(pod: JsonObject) -> datetime | None:
    """When somebody deleted the pod; None while nobody has."""
    metadata = pod["metadata"]
    gone = metadata.get("deletionTimestamp")
    if gone is None:
        return None
    # The API server sets the deletion time to the end of the grace period.
    return parse_time(gone) - timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))
