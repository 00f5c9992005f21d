# SPDX-License-Identifier: Apache-2.0
"""Whether the front would answer now: found out again and again, never remembered from before."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

from r1reward_trainer.rollout import RolloutError

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0


class NotReady(Exception):
    """The model cannot judge now; the message says why."""


class Readiness:
    """Ready while the last check came to a good end.

    Args:
        once: before the first check; an error of it is final.
        check: raises RolloutError while the model cannot judge.
        note: told of every change.
        interval: seconds between two checks.
    """

    def __init__(
        self,
        once: Callable[[], Awaitable[None]],
        check: Callable[[], Awaitable[None]],
        note: Callable[[bool], None],
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._once = once
        self._check = check
        self._note = note
        self._interval = interval
        self._reason: str | None = "the weights' digest is being computed"

    def require(self) -> None:
        """Raises:
        NotReady: with the reason.
        """
        if self._reason is not None:
            raise NotReady(self._reason)

    def lost(self, error: RolloutError) -> None:
        """A request has found the model out: not ready until the next check has passed."""
        self._become(str(error))

    async def watch(self) -> NoReturn:
        """Checks for ever.

        Raises:
            Exception: what `once` raised.
        """
        await self._once()
        self._become("the model has not answered yet")
        while True:
            try:
                await self._check()
            except RolloutError as error:
                self._become(str(error))
            else:
                self._become(None)
            await asyncio.sleep(self._interval * random.uniform(0.75, 1.25))

    def _become(self, reason: str | None) -> None:
        if (reason is None) != (self._reason is None):
            logger.info("ready" if reason is None else f"not ready: {reason}")
        self._reason = reason
        self._note(reason is None)
