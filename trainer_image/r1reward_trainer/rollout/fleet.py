# SPDX-License-Identifier: Apache-2.0
"""All rollout servers of a stage as one: discovery, health, weights and dispatch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from r1reward_trainer.rollout.types import (
    GenerateRequest,
    GenerateResult,
    ServerStatus,
    UpdateTiming,
    WeightVersion,
)


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Where the servers are and how long things may take (seconds)."""

    service: str  # headless Service name, or an address
    job_uid: str
    port: int = 8000
    resolve_interval: float = 5.0
    max_in_flight_per_server: int = 64
    request_timeout: float = 600.0
    request_attempts: int = 4
    prepare_timeout: float = 1800.0
    control_timeout: float = 300.0
    no_server_timeout: float = 900.0


class RolloutFleet:
    """Thread-safe and synchronous; an event loop of its own runs in a background thread.

    ``presign`` turns a weight file's key into a URL that servers can GET.
    """

    def __init__(
        self, options: FleetOptions, *, token: str, presign: Callable[[str], str]
    ) -> None: ...

    def set_weights(self, weights: WeightVersion) -> dict[str, UpdateTiming]:
        """Bring every reachable server to ``weights``; by address, what it took.

        Waits up to ``no_server_timeout`` for a first server. Servers that are not reachable now
        get the weights when they come (back), before any prompt. Raises
        :class:`WeightUpdateFailed` when no server took them.
        """
        raise NotImplementedError

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """Answers in the order of the requests, all from the weights last set.

        Work of a server that dies moves to the others. Raises :class:`NoHealthyServer`,
        :class:`RequestRefused` or :class:`PromptMismatch`.
        """
        raise NotImplementedError

    def status(self) -> list[ServerStatus]:
        """What is known of every server, by address."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the background thread and close every connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
