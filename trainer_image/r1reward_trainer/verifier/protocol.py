# SPDX-License-Identifier: Apache-2.0
"""What goes over the wire between trainer and verifier: `POST /v1/rewards`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from r1reward_api.base import ApiModel
from r1reward_trainer.method.reward import JudgeOutcome

MAX_SAMPLES = 4096
"""Samples in one request."""


def as_unicode(text: str) -> str:
    """The text with `?` for halves of surrogate pairs: JSON can hold them, UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


HostileText = Annotated[str, AfterValidator(as_unicode)]
"""Text of any content, which can be hashed and sent on whatever is in it."""


class Sample(ApiModel):
    """A response to be rewarded."""

    id: Annotated[HostileText, Field(max_length=253)]
    """Comes back with the reward."""
    response: HostileText
    """What the policy wrote, without prompt and end token. Hostile."""
    gold: Literal[1, 2]
    """The better answer."""


class Reward(ApiModel):
    """A response's reward and its parts."""

    id: str
    """Of the sample."""
    result: Literal[0, 1]
    """1 when the verdict is the gold one."""
    format: Literal[0, 1]
    """1 when the form is right."""
    consistency: Literal[-1, 0, 1]
    """Whether the chain concludes the verdict; 0 when not known."""
    total: float
    """The reward."""
    verdict: Literal[1, 2] | None
    """What the response chose; null when it cannot be read."""
    judge: JudgeOutcome
    """What the judge said, or why it did not."""


class RewardsRequest(ApiModel):
    """Samples to be rewarded."""

    samples: Annotated[list[Sample], Field(max_length=MAX_SAMPLES)]
    """In any order."""


class RewardsResponse(ApiModel):
    """Rewards in the order of the samples."""

    rewards: list[Reward]
    """One a sample."""
    judge_errors: int
    """Samples whose consistency is 0 because the judge was out or could not be understood."""
