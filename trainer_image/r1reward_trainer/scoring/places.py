# SPDX-License-Identifier: Apache-2.0
"""A bound on what is under way. Nobody waits in line here: who finds no place is told when to come
again, so that a crowd costs neither memory nor a deadline."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LONGEST_WAIT = 60
_WEIGHT = 0.2


@dataclass(frozen=True)
class Limits:
    """What one front bears.

    Attributes:
        in_flight: prompts that are being answered at once; n answers make n · (n − 1) of them.
        body_bytes: of a request.
        deadline_seconds: of a request.
    """

    in_flight: int = 64
    body_bytes: int = 32 << 20
    deadline_seconds: float = 600.0


class NoPlace(Exception):
    """All places are taken.

    Attributes:
        retry_after: seconds, at least 1, after which one may be free.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many requests are under way: try again in {retry_after} s")
        self.retry_after = retry_after


class Places:
    """So many units of work at once. For one event loop.

    Args:
        total: how many.
        clock: monotonic seconds.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.taken = 0
        self._clock = clock
        self._seconds = 1.0

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Holds so many places for the context, however it ends.

        Raises:
            NoPlace: when fewer are free.
        """
        if self.taken + count > self.total:
            raise NoPlace(max(1, min(_LONGEST_WAIT, math.ceil(self._seconds))))
        self.taken += count
        begin = self._clock()
        try:
            yield
            # Of work that came to its end: what was given up says nothing about the next.
            self._seconds += _WEIGHT * (self._clock() - begin - self._seconds)
        finally:
            self.taken -= count
