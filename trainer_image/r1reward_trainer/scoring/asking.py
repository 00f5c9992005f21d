# SPDX-License-Identifier: Apache-2.0
"""How `r1 score` asks, whomever it asks: one request at a time, again while the other is busy."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import InfrastructureError
from r1reward_trainer.scoring.protocol import ModelInfo, ScoreRequest, ScoreResponse

T = TypeVar("T")

_LONGEST_PAUSE = 60.0


class Busy(Exception):
    """Not now. Worth another try after `seconds`, if that is known."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class Scorer(Protocol):
    """Scores one request at a time, any number at once."""

    async def model(self) -> ModelInfo:
        """What judges. Raises as `score`."""
        ...

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """The scores.

        Raises:
            BadItem: the request cannot be scored.
            Busy: not now.
            StageError: never.
        """
        ...


class Patience:
    """Tries again while the other side is busy, with growing pauses and jitter.

    Calls that share a patience are in it together: as long as one of them succeeds now and then,
    the other side is not out but full, and none gives up.

    Args:
        seconds: without any success, from the first failure to giving up.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failing_since: float | None = None

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result.

        Args:
            work: done again and again.

        Raises:
            InfrastructureError: RolloutUnavailable, when it was busy for too long.
        """
        clock = asyncio.get_running_loop().time
        pause = 0.5
        while True:
            try:
                result = await work()
            except Busy as error:
                wait = min(error.seconds or pause, _LONGEST_PAUSE) * random.uniform(1.0, 1.5)
                if self._failing_since is None:
                    self._failing_since = clock()
                if clock() + wait > self._failing_since + self._seconds:
                    raise InfrastructureError(
                        Reason.ROLLOUT_UNAVAILABLE,
                        f"no scores for {self._seconds:g} s, at last: {error}; what is done is "
                        "kept, run the command again to go on",
                    ) from error
                await asyncio.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._failing_since = None
                return result
