# SPDX-License-Identifier: Apache-2.0
"""How `r1 score` asks, whomever it asks: one request at a time, again while the other is out or
full, and a few times where it is perhaps the request that is to blame."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import InfrastructureError
from r1reward_trainer.scoring.items import BadItem
from r1reward_trainer.scoring.protocol import ModelInfo, ScoreRequest, ScoreResponse

T = TypeVar("T")

TRIES = 3
"""Of a request that fails while the model is there."""
_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


class Busy(Exception):
    """The other side is out, for all that it says. Worth another try after `seconds`, if that is
    known."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class Full(Busy):
    """The other side is there, and at work for others."""


class Failed(Exception):
    """The request came to no good end, whether by its own fault or by the other side's."""


class Scorer(Protocol):
    """Scores one request at a time, any number at once."""

    async def model(self) -> ModelInfo:
        """What judges, once it is there.

        Raises:
            Busy: not now.
            StageError: never.
        """
        ...

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """The scores.

        Raises:
            BadItem: the request cannot be scored.
            Failed: perhaps it cannot.
            Busy: not now.
            StageError: never.
        """
        ...


async def ask(scorer: Scorer, request: ScoreRequest, patience: "Patience") -> ScoreResponse:
    """The scores, however often they must be asked for.

    Raises:
        BadItem: the request cannot be scored, or failed in every one of TRIES tries.
        InfrastructureError: as `Patience.call`.
    """
    left = TRIES
    while True:
        try:
            return await patience.call(partial(scorer.score, request))
        except Failed as error:
            left -= 1
            if not left:
                raise BadItem(f"{error} ({TRIES} tries)") from error
        # Only what fails while the model is there is the request's fault.
        await asyncio.sleep(_jittered(_PAUSE * 2 ** (TRIES - left)))
        await patience.call(scorer.model)


class Patience:
    """Tries again while the other side is out or full, with growing pauses and jitter.

    Calls that share a patience are in it together: as long as one of them comes to an end now and
    then, none gives up.

    Args:
        seconds: how long the other side may be out, from the first failure on. That it is full is
            an answer.
        full_seconds: how long it may be out or full.
    """

    def __init__(self, seconds: float, full_seconds: float) -> None:
        self._seconds = seconds
        self._full_seconds = max(seconds, full_seconds)
        self._out_since: float | None = None
        self._idle_since: float | None = None

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result.

        Args:
            work: done again and again.

        Raises:
            InfrastructureError: RolloutUnavailable, when it was out or full for too long.
        """
        pause = _PAUSE
        while True:
            try:
                result = await work()
            except Busy as error:
                wait = _jittered(error.seconds or min(pause, _LONGEST_PAUSE))
                await asyncio.sleep(min(wait, self._left(error)))
                pause = 2 * pause
            except BadItem:
                self._progress()
                raise
            else:
                self._progress()
                return result

    def _progress(self) -> None:
        self._out_since = self._idle_since = None

    def _left(self, error: Busy) -> float:
        """Seconds until the last try, above 0.

        Raises:
            InfrastructureError: that was it.
        """
        now = asyncio.get_running_loop().time()
        self._idle_since = now if self._idle_since is None else self._idle_since
        if isinstance(error, Full):
            self._out_since = None
        elif self._out_since is None:
            self._out_since = now
        full = self._idle_since + self._full_seconds - now
        out = full if self._out_since is None else self._out_since + self._seconds - now
        if min(full, out) > 0:
            return min(full, out)
        seconds = self._full_seconds if full <= 0 else self._seconds
        raise InfrastructureError(
            Reason.ROLLOUT_UNAVAILABLE,
            f"no scores for {seconds:g} s, at last: {error}; what is done is kept, run the command "
            "again to go on",
        ) from error


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1.0, 1.5)
