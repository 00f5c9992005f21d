# SPDX-License-Identifier: Apache-2.0
"""How a stage ends: a result, or an error whose class decides what it costs."""

import errno
from dataclasses import dataclass, field

from r1reward_api.constants import ExitCode
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.termination import BriefOutput, CachedStage, FailureClass


@dataclass(frozen=True)
class Outcome:
    """A stage's success.

    Attributes:
        manifest: what it left in storage.
        cache_hit: the manifest had been there before.
        code: prepare only: digest of each stage's code.
        cached: prepare only: later stages already computed.
        step: steps done.
    """

    manifest: StageManifest
    cache_hit: bool = False
    code: dict[str, str] = field(default_factory=dict)
    cached: list[CachedStage] = field(default_factory=list)
    step: int | None = None


def brief_outputs(manifest: StageManifest) -> dict[str, BriefOutput]:
    """The manifest's outputs without their file lists."""
    return {
        name: BriefOutput(digest=o.digest, bytes=o.bytes, rows=o.rows)
        for name, o in manifest.outputs.items()
    }


def run_of(manifest: StageManifest) -> str:
    """Where the manifest's outputs lie, below the stage's key."""
    return f"runs/{manifest.created_by}/attempt-{manifest.attempt}"


class StageError(Exception):
    """A stage's failure. Raise one of the three subclasses.

    Args:
        reason: from `r1reward_api.reasons`.
        message: names the field, the value and the remedy.
    """

    failure_class = FailureClass.PROGRAM
    exit_code = ExitCode.PROGRAM

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        # Half a surrogate pair, as JSON can spell it, has no place in a termination message.
        self.message = message.encode("utf-8", "replace").decode()


class ConfigurationError(StageError):
    """The user must change something: final at once."""

    failure_class = FailureClass.CONFIGURATION
    exit_code = ExitCode.CONFIGURATION


class InfrastructureError(StageError):
    """Not the job's fault: tried again, not counted."""

    failure_class = FailureClass.INFRASTRUCTURE
    exit_code = ExitCode.INFRASTRUCTURE


class ProgramError(StageError):
    """The program failed: tried again, counted."""


class Interrupted(StageError):
    """SIGTERM arrived and the state has been saved."""

    failure_class = FailureClass.INFRASTRUCTURE
    exit_code = ExitCode.INTERRUPTED

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(Reason.INTERRUPTED, message)
        self.step = step


def is_disk_full(error: Exception) -> bool:
    """True for what Python and the libraries below it raise when a disk of the pod is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error)


def disk_full(what: str) -> ProgramError:
    """The error for a full disk of the pod; counted like a full memory.

    Args:
        what: what did not fit, and where.
    """
    return ProgramError(
        Reason.DISK_FULL,
        f"{what}: no space is left; raise `scratch` of the role in the runtime, or give its nodes "
        "more ephemeral storage",
    )


def as_stage_error(error: Exception) -> StageError:
    """Any failure of a stage as a StageError; one that is none is the program's."""
    if isinstance(error, StageError):
        return error
    text = f"{type(error).__name__}: {error}"
    return disk_full(text) if is_disk_full(error) else ProgramError(Reason.PROGRAM_ERROR, text)
