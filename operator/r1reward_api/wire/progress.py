# SPDX-License-Identifier: Apache-2.0
"""What a running stage reports, at every percent or 30 s; becomes `status.progress`."""

from typing import Annotated

from pydantic import Field

from r1reward_api.base import ApiModel

MESSAGE_CHARACTERS = 512


class Progress(ApiModel):
    """A running stage's own report. Readers ignore that of another stage or attempt."""

    stage: Annotated[str, Field(max_length=32)]
    """The stage that reports."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """Its attempt."""
    step: Annotated[int, Field(ge=0)] = 0
    """Steps (or rows, or judgements) done."""
    total_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in all; 0 when not known yet."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share done."""
    eta_seconds: Annotated[int, Field(ge=0)] | None = None
    """Estimated seconds until the stage ends."""
    metrics: Annotated[dict[Annotated[str, Field(max_length=64)], float], Field(max_length=64)] = {}
    """Current figures, such as reward/mean; finite numbers only."""
    message: Annotated[str, Field(max_length=MESSAGE_CHARACTERS)] | None = None
    """What is being done, in words."""
    waiting_for: Annotated[str, Field(max_length=MESSAGE_CHARACTERS)] | None = None
    """What does not work just now and is tried again, such as storage."""
    checkpoint_step: Annotated[int, Field(ge=0)] | None = None
    """Step of the last committed checkpoint."""
    checkpoint_uri: Annotated[str, Field(max_length=1024)] | None = None
    """Where that checkpoint lies."""
    heartbeat: Annotated[str, Field(max_length=64)]
    """When this was sent, RFC 3339; in status when it came, by the operator's clock."""
