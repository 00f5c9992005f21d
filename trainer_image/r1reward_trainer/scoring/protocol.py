# SPDX-License-Identifier: Apache-2.0
"""What goes over the wire with the scoring front: `POST /v1/score`. Answers are numbered from 1,
as everywhere on the wire."""

import base64
import binascii
from typing import Annotated

from pydantic import AfterValidator, Field

from r1reward_api.base import ApiModel
from r1reward_trainer.verifier.protocol import HostileText

MAX_ANSWERS = 16
MAX_TEXT = 100_000
MAX_IMAGES = 64
_DATA_URL = "data:"


def calls(answers: int) -> int:
    """Requests to the model that so many answers take."""
    return answers * (answers - 1)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def image_bytes(encoded: str) -> bytes:
    """The file in a data URL or base64 text.

    Raises:
        ValueError: when it is neither.
    """
    text = encoded.partition(",")[2] if encoded.startswith(_DATA_URL) else encoded
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is neither base64 nor a data URL with base64") from None


def _decodable(encoded: str) -> str:
    image_bytes(encoded)
    return encoded


Text = Annotated[HostileText, Field(max_length=MAX_TEXT), AfterValidator(_not_blank)]


class ScoreRequest(ApiModel):
    """Answers to one question, to be compared two by two, each pair in both orders."""

    question: Text
    """What was asked. Hostile."""
    answers: Annotated[list[Text], Field(min_length=2, max_length=MAX_ANSWERS)]
    """Two or more. Hostile."""
    images: Annotated[
        list[Annotated[str, AfterValidator(_decodable)]], Field(max_length=MAX_IMAGES)
    ] = []
    """What the question is about: PNG, JPEG or WebP files as data URLs or base64."""

    @property
    def files(self) -> tuple[bytes, ...]:
        """The images' bytes."""
        return tuple(image_bytes(image) for image in self.images)


class ModelInfo(ApiModel):
    """What judges."""

    weights: str
    """Digest of the weights."""
    max_images: int
    """Most images of a request."""
    max_answers: int
    """Most answers of a request."""
    temperature: float
    """Of the calibration: probabilities are divided by it in log-odds; 1 leaves the model's own."""


class OrderVerdict(ApiModel):
    """What the model wrote when it saw the pair in one order."""

    shown: tuple[int, int]
    """The answers as Response 1 and Response 2."""
    verdict: int | None
    """The better answer; null when the response has no readable verdict."""
    probability: float | None
    """That the pair's `first` is better, calibrated; null without a verdict."""
    reasoning: str
    """The chain of thought; the whole response where it has not the form. Hostile."""
    tokens: int
    """Length of the response."""
    truncated: bool
    """The response was cut at the longest length."""


class Comparison(ApiModel):
    """Two answers against each other."""

    first: int
    """An answer."""
    second: int
    """Another one."""
    verdict: int | None
    """The better one over both orders; null when they cancel, or neither has a verdict."""
    probability: float | None
    """That `first` is better: log-odds averaged over both orders, calibrated."""
    orders_agree: bool
    """Both orders have a verdict, and the same."""
    orders: tuple[OrderVerdict, OrderVerdict]
    """`first` shown first, then `second` shown first."""


class AnswerScore(ApiModel):
    """One answer among the others."""

    answer: int
    """Its number."""
    rank: int
    """1 is best; equals share a rank."""
    reward: float
    """−1 to 1: the probability of being better than another answer of the group, minus that of
    being worse. Its mean over a group is 0, so it is its own baseline."""
    strength: float
    """Bradley–Terry: P(i is better than j) = 1 / (1 + exp(strength_j − strength_i)), mean 0."""


class ScoreResponse(ApiModel):
    """Verdicts, probabilities and the ranking that they make."""

    verdict: int | None
    """The best answer; null where several are equally good."""
    scores: list[AnswerScore]
    """By answer."""
    comparisons: list[Comparison]
    """Every two answers."""
    cycles: list[list[int]]
    """Answers of which each is better than the next and the last better than the first: where
    there are any, no ranking agrees with all verdicts."""
    cyclic_triads: int
    """Number of cycles of three."""
    consistence: float
    """1 without cyclic triads, 0 with as many as there can be (Kendall's zeta)."""
    weights: str
    """Digest of the weights that judged."""
