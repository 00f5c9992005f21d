# SPDX-License-Identifier: Apache-2.0
"""How long a call to storage is tried again: bounded by time, with backoff and jitter."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

TOLD_SECONDS = 10.0
"""A fault that lasts longer is told to people while the call is still tried again."""


@dataclass(frozen=True)
class Patience:
    """What a fault of storage may cost before the attempt is given up.

    Attributes:
        seconds: after a call's first failure; a store that restarts is back by then.
        first_pause: seconds before the second try; doubles with each further one.
        longest_pause: seconds.
        clock: seconds that only rise.
        sleep: for seconds.
        jitter: numbers in [0, 1); the half of each pause is drawn by it.
    """

    seconds: float = 120.0
    first_pause: float = 0.4
    longest_pause: float = 10.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def begin(self) -> "Tries":
        """The tries of one call."""
        return Tries(self)


class Tries:
    """The tries of one call."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._begin = patience.clock()
        self._failures = 0
        self._end = 0.0

    @property
    def lasts(self) -> bool:
        """Whether the call has failed for so long that somebody should be told."""
        waited = self._patience.clock() - self._begin
        return self._failures > 0 and waited >= TOLD_SECONDS

    def again(self) -> bool:
        """After a failure: waits and returns True, or returns False when it was the last try."""
        patience = self._patience
        now = patience.clock()
        if self._failures == 0:
            self._end = now + patience.seconds
        doubled = patience.first_pause * 2 ** min(self._failures, 16)
        pause = min(patience.longest_pause, doubled) * (1 + patience.jitter()) / 2
        self._failures += 1
        if now + pause > self._end:
            return False
        patience.sleep(pause)
        return True
