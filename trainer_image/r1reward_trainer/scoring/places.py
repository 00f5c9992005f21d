# SPDX-License-Identifier: Apache-2.0
"""Bounds on what is under way. No request waits in line: who finds no place is told when to come
again, so that a crowd costs neither memory nor a deadline. Only prompts of requests that have their
place wait, for room for their images."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

PAIR = 2
"""Prompts of a pair of answers: with so many places any request may begin."""
SHARES = 4
"""A request has at most one of so many equal parts of the places, so that none has them all."""
_LONGEST_WAIT = 60
_WEIGHT = 0.2


@dataclass(frozen=True)
class Limits:
    """What one front bears.

    Attributes:
        in_flight: prompts that are being answered at once; n answers make n · (n − 1) of them,
            of which a request has at most a quarter of these places at once.
        body_bytes: of a request.
        bodies_bytes: of all requests that are being read or answered.
        deadline_seconds: of a request.
    """

    in_flight: int = 64
    body_bytes: int = 32 << 20
    bodies_bytes: int = 256 << 20
    deadline_seconds: float = 600.0


class NoPlace(Exception):
    """All places are taken.

    Attributes:
        retry_after: seconds, at least 1, after which one may be free.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many requests are under way: try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Share:
    """What one request holds.

    Attributes:
        most: places that it may come to hold.
        held: places that it holds.
        at_once: lets as many pass.
    """

    most: int
    held: int = 0
    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))


class Places:
    """So many units of work at once. For one event loop.

    Args:
        total: how many.
        clock: monotonic seconds.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.taken = 0
        self._shares: list[_Share] = []
        self._clock = clock
        self._seconds = 1.0

    @contextmanager
    def take(self, wanted: int) -> Iterator[asyncio.Semaphore]:
        """Holds places for the context, however it ends: of those wanted as many as are free, up
        to a request's part of all, and more up to it as others leave.

        Yields:
            What lets so much work begin at once as places are held.

        Raises:
            NoPlace: when fewer are free than a pair needs.
        """
        least = min(wanted, PAIR, self.total)
        if self.taken + least > self.total:
            raise NoPlace(max(1, min(_LONGEST_WAIT, math.ceil(self._seconds))))
        share = _Share(min(wanted, max(least, self.total // SHARES)))
        self._shares.append(share)
        self._fill()
        begin = self._clock()
        try:
            yield share.at_once
            # Of work that came to its end: what was given up says nothing about the next.
            self._seconds += _WEIGHT * (self._clock() - begin - self._seconds)
        finally:
            self._shares.remove(share)
            self.taken -= share.held
            self._fill()

    def _fill(self) -> None:
        """Gives what is free to those who may hold more."""
        for share in self._shares:
            more = min(share.most - share.held, self.total - self.taken)
            share.held += more
            self.taken += more
            for _ in range(more):
                share.at_once.release()


class Stock:
    """So many units at once. Who finds too little is sent away. For one event loop.

    Args:
        total: how many.
        retry_after: seconds after which some may be free.
    """

    def __init__(self, total: int, retry_after: int) -> None:
        self.total = total
        self.retry_after = retry_after
        self._taken = 0

    def require(self, count: int) -> None:
        """Raises:
        NoPlace: when fewer are free.
        """
        if self._taken + count > self.total:
            raise NoPlace(self.retry_after)

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Holds so many for the context, however it ends.

        Raises:
            NoPlace: when fewer are free.
        """
        self.require(count)
        self._taken += count
        try:
            yield
        finally:
            self._taken -= count


@dataclass(eq=False)
class _Waiting:
    """Who stands in line.

    Attributes:
        count: units that he wants.
        turn: done when he has them.
    """

    count: int
    turn: asyncio.Future[None]


class Room:
    """So many units at once. Who finds too little waits, and nobody who wants any overtakes him;
    who needs more than all has all. For one event loop.

    Args:
        total: how many.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._line: deque[_Waiting] = deque()

    @asynccontextmanager
    async def take(self, count: int) -> AsyncIterator[None]:
        """Holds so many for the context, however it ends."""
        count = min(count, self._total)
        if count:  # who wants nothing keeps nobody waiting
            await self._enter(count)
        try:
            yield
        finally:
            self._leave(count)

    async def _enter(self, count: int) -> None:
        waiting = _Waiting(count, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self._admit()
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._line:
                self._line.remove(waiting)
                self._admit()  # those behind him may be content with less
            else:
                self._leave(count)
            raise

    def _leave(self, count: int) -> None:
        self._free += count
        self._admit()

    def _admit(self) -> None:
        """Lets in from the head of the line whom there is room for."""
        while self._line and self._line[0].count <= self._free:
            waiting = self._line.popleft()
            self._free -= waiting.count
            if not waiting.turn.done():  # else he is leaving, and gives back what he never used
                waiting.turn.set_result(None)
