# SPDX-License-Identifier: Apache-2.0
"""The content of a report: report.json, from which the page is rendered."""

from typing import Any

from r1reward_api.base import ApiModel
from r1reward_trainer.evaluation.figures import Figures
from r1reward_trainer.method.reasons import FormatReason, ResultReason


class Curve(ApiModel):
    """One training metric over steps, thinned for display."""

    stage: str
    """sft or rl."""
    name: str
    """Such as reward/mean."""
    steps: list[int]
    """Rising."""
    values: list[float]
    """One a step."""


class Transcript(ApiModel):
    """One answer of the last model, with what it was asked."""

    row: int
    """Position among the held-out rows."""
    row_id: str
    """The row's id."""
    order: str
    """Given or Swapped."""
    question: str
    """Asked about the images."""
    answer1: str
    """As it stood in the prompt."""
    answer2: str
    """As it stood in the prompt."""
    gold: int
    """The better one."""
    verdict: int | None
    """What the model says."""
    correct: bool
    """Whether they agree."""
    tokens: int
    """Length of the response."""
    response: str
    """The whole response."""
    result_reason: ResultReason
    """Why it is right or wrong, as the verifier would say in training."""
    format_reason: FormatReason
    """Whether its form is right: else the first rule that it breaks."""
    others: dict[str, int | None]
    """Verdicts of the earlier models on the same prompt."""


class Artifact(ApiModel):
    """Something that this evaluation read, and where it came from."""

    name: str
    """What it is to the evaluation: heldout, base, sft, rl, …"""
    stage: str
    """The stage that made it."""
    key: str
    """That stage's key: equal keys mean equal results."""
    uri: str
    """Where it lies."""
    digest: str
    """Of its content."""
    bytes: int
    """Its size."""
    rows: int | None = None
    """Rows, where it is a table."""
    created_by: str
    """UID of the job that computed it."""
    created_at: str
    """When."""


class Setting(ApiModel):
    """One line of how it was trained."""

    name: str
    """In words."""
    value: str
    """In words."""


class Report(Figures):
    """All that the page shows, but the images."""

    version: int = 1
    """Of this format."""
    job: str
    """The job's name."""
    namespace: str
    """Its namespace."""
    key: str
    """The evaluation's key."""
    created_at: str
    """RFC 3339."""
    base_model: str
    """URI of the base model."""
    settings: list[Setting]
    """How it was trained and asked."""
    artifacts: list[Artifact]
    """What was trained from what."""
    curves: list[Curve]
    """Training metrics."""
    transcripts: list[Transcript]
    """Some answers, right and wrong."""
    spec: dict[str, Any]
    """The fields of the job's spec that change a result."""
