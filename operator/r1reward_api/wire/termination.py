# SPDX-License-Identifier: Apache-2.0
"""The termination message: how a stage's container tells the operator its outcome."""

import json
from enum import StrEnum
from typing import Annotated, Any, Literal

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
    """An output without its file list; it lies at `stages/<stage>/<key>/<run>/<name>`."""

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
    run: Annotated[str, Field(max_length=128)]
    """`runs/<job uid>/attempt-<n>` of the run that computed it."""
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
    run: Annotated[str, Field(max_length=128)] = ""
    """`runs/<job uid>/attempt-<n>` of the run that computed the outputs."""
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
        """JSON within the limit; cuts the message, then leaves out the last cached stages (they
        find their results themselves), then the sizes of outputs, never the rest of the structure.

        Raises:
            ValueError: when it is too long even so.
        """
        wire = self.to_wire()
        text = _compact(wire)
        excess = len(text.encode()) - TERMINATION_MESSAGE_LIMIT
        if excess > 0 and self.message:
            wire["message"] = _cut(self.message, excess + 8)
            text = _compact(wire)
        while len(text.encode()) > TERMINATION_MESSAGE_LIMIT and wire["cached"]:
            wire["cached"].pop()
            text = _compact(wire)
        if len(text.encode()) > TERMINATION_MESSAGE_LIMIT:
            wire["outputs"] = {n: {"digest": o.digest} for n, o in self.outputs.items()}
            text = _compact(wire)
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


def _compact(wire: dict[str, Any]) -> str:
    return json.dumps(wire, separators=(",", ":"), ensure_ascii=False)


def _cut(message: str, excess: int) -> str:
    raw = message.encode()
    return raw[: max(0, len(raw) - excess)].decode(errors="ignore") + "…"
