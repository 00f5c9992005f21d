# SPDX-License-Identifier: Apache-2.0
"""What was seen of a job so far: its lost attempts and its committed steps. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Loss:
    """One attempt that ended badly.

    Attributes:
        stage: its stage.
        number: of the stage's losses, from 1.
        failure_class: `Program`, `Infrastructure`, or `Configuration`, which counts as neither.
        reason: None when the next loss came before this one's was seen.
        message: in words.
        since, at: seconds of the run between which it was seen.
    """

    stage: str
    number: int
    failure_class: str
    reason: str | None
    message: str
    since: float
    at: float


@dataclass(frozen=True)
class History:
    """What was seen of one job.

    Attributes:
        at: seconds of the run when it was last looked at.
        losses: in the order in which they came.
        pointers: last committed step by checkpoint folder.
        reported: last step of `status.checkpoint` by stage.
        problems: committed work that was lost, in words.
    """

    at: float = 0.0
    losses: tuple[Loss, ...] = ()
    pointers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    reported: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    problems: tuple[str, ...] = ()


def look(
    seen: History, status: Mapping[str, Any], pointers: Mapping[str, int] | None, at: float
) -> History:
    """What is known after one more look.

    Args:
        seen: what was known before.
        status: of the job.
        pointers: committed step by checkpoint folder, read after the status; None: storage did
            not answer.
        at: seconds of the run.
    """
    losses = [loss for stage in status.get("stages", []) for loss in _losses(seen, stage, at)]
    found = replace(seen, at=at, losses=(*seen.losses, *losses))
    checkpoint = status.get("checkpoint")
    if checkpoint:
        found = _reported(found, checkpoint["stage"], checkpoint["step"])
    return found if pointers is None else _committed(found, pointers)


def _losses(seen: History, stage: Mapping[str, Any], at: float) -> list[Loss]:
    name = stage["name"]
    before = [loss for loss in seen.losses if loss.stage == name]
    program = stage.get("programFailures", 0) - _count(before, "Program")
    infrastructure = stage.get("infrastructureFailures", 0) - _count(before, "Infrastructure")
    classes = ["Program"] * program + ["Infrastructure"] * infrastructure
    # What is final at once is counted nowhere: it is known by its new message.
    is_new = all(loss.message != stage.get("message") for loss in before)
    if stage.get("phase") == "Failed" and not classes and is_new:
        classes = ["Configuration"]
    losses = []
    for index, failure_class in enumerate(classes):
        last = index == len(classes) - 1
        losses.append(
            Loss(
                stage=name,
                number=len(before) + index + 1,
                failure_class=failure_class,
                reason=stage.get("reason") if last else None,
                message=(stage.get("message") or "") if last else "",
                since=seen.at,
                at=at,
            )
        )
    return losses


def _count(losses: list[Loss], failure_class: str) -> int:
    return sum(loss.failure_class == failure_class for loss in losses)


def _reported(seen: History, stage: str, step: int) -> History:
    before = seen.reported.get(stage, 0)
    problems = seen.problems
    if step < before:
        problems += (f"status.checkpoint of {stage} went from step {before} back to {step}",)
    return replace(seen, reported={**seen.reported, stage: step}, problems=problems)


def _committed(seen: History, pointers: Mapping[str, int]) -> History:
    problems = list(seen.problems)
    for folder, before in seen.pointers.items():
        now = pointers.get(folder)
        if now is None:
            problems.append(f"the checkpoint pointer in {folder} is gone; it was at step {before}")
        elif now < before:
            problems.append(f"the checkpoints in {folder} went from step {before} back to {now}")
    # A reported step was committed before it was reported, and the pointers were read later.
    for stage, reported in seen.reported.items():
        steps = [step for folder, step in pointers.items() if folder.startswith(f"stages/{stage}/")]
        if reported > max(steps, default=0):
            problems.append(
                f"status.checkpoint says step {reported} of {stage}, storage has "
                f"{max(steps, default=0)}"
            )
    once = tuple(dict.fromkeys(problems))
    return replace(seen, pointers=dict(pointers), problems=once)
