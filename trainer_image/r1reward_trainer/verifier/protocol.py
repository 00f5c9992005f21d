# SPDX-License-Identifier: Apache-2.0
"""What goes over the wire between trainer and verifier: `POST /v1/rewards`."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator

from r1reward_api.base import ApiModel
from r1reward_trainer.method.reasons import ConsistencyReason, FormatReason, ResultReason
from r1reward_trainer.method.reward import JudgeOutcome

MAX_SAMPLES = 4096
"""Samples in one request."""


def as_unicode(text: str) -> str:
    """The text with `?` for halves of surrogate pairs: JSON can hold them, UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


HostileText = Annotated[str, AfterValidator(as_unicode)]
"""Text of any content, which can be hashed and sent on whatever is in it."""


def no_boolean(gold: Any) -> Any:
    """The value as it is.

    Raises:
        ValueError: for true, which Python takes for 1.
    """
    if isinstance(gold, bool):
        raise ValueError("must be 1 or 2, not true or false")
    return gold


class Sample(ApiModel):
    """A response to be rewarded."""

    id: Annotated[HostileText, Field(max_length=253)]
    """Comes back with the reward."""
    response: HostileText
    """What the policy wrote, without prompt and end token. Hostile."""
    gold: Annotated[Literal[1, 2], BeforeValidator(no_boolean)]
    """The better answer."""


class Reasons(ApiModel):
    """Why each term is what it is."""

    result: ResultReason
    """Of `result`."""
    format: FormatReason
    """Of `format`: the first rule that is broken."""
    consistency: ConsistencyReason
    """Of `consistency`."""


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
    reasons: Reasons
    """Why, for programs."""
    explanation: str
    """Why, in words. No word of the response is in it."""


class RewardsRequest(ApiModel):
    """Samples to be rewarded."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "samples": [
                        {
                            "id": "a",
                            "response": "<think>so Response 1</think><answer>1</answer>",
                            "gold": 1,
                        }
                    ]
                }
            ]
        }
    )

    samples: Annotated[list[Sample], Field(max_length=MAX_SAMPLES)]
    """In any order, each with an id of its own."""

    @field_validator("samples")
    @classmethod
    def _ids_differ(cls, samples: list[Sample]) -> list[Sample]:
        """A reward is known by its sample's id, so no two may share one."""
        ((most, times),) = Counter(s.id for s in samples).most_common(1) or [("", 1)]
        if times > 1:
            raise ValueError(f"{times} samples have the id {most[:40]!r}: give each its own")
        return samples


class RewardsResponse(ApiModel):
    """Rewards in the order of the samples."""

    rewards: list[Reward]
    """One a sample."""
    judge_errors: int
    """Samples of which the judge said nothing: it was out, was not understood, or refused them."""
    consistency_weight: float
    """total = result * (1 + consistencyWeight * consistency) + formatWeight * format."""
    format_weight: float
    """See consistencyWeight."""
