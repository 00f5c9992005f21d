# SPDX-License-Identifier: Apache-2.0
"""What the fleet knows of one server, and the calls that are under way on it."""

import asyncio
import logging
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any, TypeVar

from r1reward_trainer.rollout.client import RolloutClient
from r1reward_trainer.rollout.types import ServerLost, ServerStatus

logger = logging.getLogger(__name__)

T = TypeVar("T")


class State(StrEnum):
    """``UNPROVEN`` (nothing is sent but a nonce) → ``STALE`` (the job's own, other weights)
    → ``READY``; back to ``UNPROVEN`` on any doubt."""

    UNPROVEN = "unproven"
    STALE = "stale"
    READY = "ready"


class Server:
    """One address; for one event loop.

    Attributes:
        listed: whether the Service still names it; if not, it may finish what it has.
        checked: whether it has been probed at all.
        updating: held from the beginning of an update to its end.
        swapping: whether its weights are just being replaced.
        pausing: held by whoever pauses it or lets it go on.
        limit: the most prompts that it may have at once.
        swaps: how often that was begun, so that a version read meanwhile is not believed.
        failed_updates: how many times in a row it failed; paces the next try.
        recheck: set to have it probed at once.
    """

    def __init__(self, address: str, client: RolloutClient, limit: int) -> None:
        self.address = address
        self.client = client
        self.state = State.UNPROVEN
        self.reason = "not probed yet"
        self.version: str | None = None
        self.pod_uid: str | None = None
        self.listed = True
        self.checked = False
        self.in_flight = 0
        self.limit = limit
        self.updating = asyncio.Lock()
        self.swapping = False
        self.pausing = asyncio.Lock()
        self.swaps = 0
        self.failed_updates = 0
        self.update_not_before = 0.0
        self.recheck = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()

    @property
    def proven(self) -> bool:
        """Whether weights may be sent to it."""
        return self.listed and self.state is not State.UNPROVEN

    @property
    def usable(self) -> bool:
        """Whether prompts may be sent to it."""
        return self.listed and self.state is State.READY

    async def call(self, exchange: Coroutine[Any, Any, T]) -> T:
        """The result of the exchange; ServerLost as soon as the server is dropped."""
        task = asyncio.ensure_future(exchange)
        self._calls.add(task)
        try:
            await asyncio.wait({task})
            if task.cancelled():
                raise ServerLost(f"{self.address} was dropped: {self.reason}")
            return task.result()
        finally:
            task.cancel()
            self._calls.discard(task)

    def become(self, state: State, reason: str = "") -> None:
        """Change state; ``reason`` says why prompts are not sent."""
        if (state, reason) != (self.state, self.reason):
            logger.info("rollout server %s: %s %s", self.address, state, reason)
        self.state, self.reason = state, reason

    def suspect(self, reason: str) -> None:
        """Send nothing more before it is probed again; calls under way may still end well."""
        self.become(State.UNPROVEN, reason)
        self.recheck.set()

    def drop(self, reason: str) -> None:
        """Give up every call under way, so that its work can move to others."""
        self.become(State.UNPROVEN, reason)
        self.version = None
        for task in self._calls:
            task.cancel()

    def status(self) -> ServerStatus:
        """For people and metrics."""
        reason = self.reason if self.listed else "the Service does not name it any more"
        return ServerStatus(self.address, self.usable, self.version, self.in_flight, reason)
