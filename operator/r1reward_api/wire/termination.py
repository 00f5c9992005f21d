# SPDX-License-Identifier: Apache-2.0
"""The termination message: how a stage's container tells the operator its outcome."""

import json
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from r1reward_api.base import ApiModel
from r1reward_api.constants import TERMINATION_MESSAGE_LIMIT, Stage


class FailureClass(StrEnum):
    """Decides what a failure costs."""

    INFRASTRUCTURE = "Infrastructure"
    """Not the job's fault: tried again, not counted towards backoffLimit."""
    PROGRAM = "Program"
    """The stage's own program failed: tried again, counted."""
    CONFIGURATION = "Configuration"
    """The user must change something: final at once."""


class BriefOutput(ApiModel):
    """An output without its file list."""

    path: Annotated[str, Field(max_length=512)]
    """Relative to `stages/<stage>/<key>/`."""
    digest: Annotated[str, Field(max_length=80)]
    """sha256:<hex>."""
    bytes: int = 0
    """Size."""
    rows: int | None = None
    """Rows, where it is a table."""


class CachedStage(ApiModel):
    """A later stage that prepare found already computed."""

    stage: Stage
    """The stage."""
    key: Annotated[str, Field(max_length=80)]
    """Its key; the operator compares it with the one it computes itself."""
    outputs: dict[str, BriefOutput]
    """Its outputs."""
    summary: dict[str, str] = {}
    """Its figures."""


class Termination(ApiModel):
    """At most TERMINATION_MESSAGE_LIMIT bytes of JSON in /dev/termination-log."""

    version: Literal[1] = 1
    """Of this format."""
    stage: Stage
    """The stage that ended."""
    attempt: int
    """Its attempt."""
    outcome: Literal["Succeeded", "Failed", "Interrupted"]
    """Interrupted: ended by SIGTERM after saving; counts as infrastructure."""
    failure_class: FailureClass | None = None
    """For Failed."""
    reason: Annotated[str, Field(max_length=128)] = ""
    """One word, from `r1reward_api.reasons`."""
    message: Annotated[str, Field(max_length=1500)] = ""
    """In words, with the remedy."""
    key: Annotated[str, Field(max_length=80)] | None = None
    """The stage's key (prepare computes its own)."""
    cache_hit: bool = False
    """True when the manifest was already there and was adopted."""
    outputs: dict[str, BriefOutput] = {}
    """Outputs by name."""
    summary: dict[str, str] = {}
    """Figures for status.summary."""
    code: dict[str, str] = {}
    """prepare only: digest of each stage's code."""
    cached: list[CachedStage] = []
    """prepare only: later stages already computed."""
    step: int | None = None
    """Step reached."""

    def encode(self) -> str:
        """JSON within the limit; cuts the message, never the structure.

        Raises:
            ValueError: when it is too long even without a message.
        """
        wire = self.to_wire()
        text = json.dumps(wire, separators=(",", ":"), ensure_ascii=False)
        excess = len(text.encode()) - TERMINATION_MESSAGE_LIMIT
        if excess > 0:
            wire["message"] = _cut(self.message, excess + 8)
            text = json.dumps(wire, separators=(",", ":"), ensure_ascii=False)
        if len(text.encode()) > TERMINATION_MESSAGE_LIMIT:
            raise ValueError(
                f"termination message has {len(text.encode())} bytes, "
                f"limit {TERMINATION_MESSAGE_LIMIT}: shorten outputs or summary"
            )
        return text

    @classmethod
    def decode(cls, text: str | None) -> "Termination | None":
        """None for anything that is not a termination message."""
        if not text:
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def _cut(message: str, excess: int) -> str:
    raw = message.encode()
    return raw[: max(0, len(raw) - excess)].decode(errors="ignore") + "…"
