# SPDX-License-Identifier: Apache-2.0
import asyncio
import random
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from r1reward_trainer.scoring.places import NoPlace, Places, Room

GROUP = 240


def passing(at_once: asyncio.Semaphore) -> int:
    """How many it lets pass from now on while none comes back."""

    async def count() -> int:
        passed = 0
        while not at_once.locked():
            await at_once.acquire()
            passed += 1
        return passed

    return asyncio.run(count())


def test_a_request_has_at_most_a_quarter_of_the_places():
    places = Places(64)
    with places.take(GROUP) as at_once:
        assert (passing(at_once), places.taken) == (16, 16)
        with places.take(6) as at_once:
            assert (passing(at_once), places.taken) == (6, 22)
    assert places.taken == 0


@pytest.mark.parametrize("total", [1, 2, 4])
def test_few_places_are_enough_for_any_request(total: int):
    places = Places(total)
    with places.take(GROUP) as at_once:
        assert passing(at_once) == places.taken == min(2, total)


def test_a_group_begins_where_a_pair_could_and_grows_as_others_leave():
    places = Places(16)
    pairs = [ExitStack() for _ in range(7)]
    for pair in pairs:
        pair.enter_context(places.take(2))
    with places.take(GROUP) as at_once:
        assert (passing(at_once), places.taken) == (2, 16)
        with pytest.raises(NoPlace), places.take(2):
            pass
        pairs[0].close()
        assert (passing(at_once), places.taken) == (2, 16)
        pairs[1].close()
        # It has its quarter: what is free now is for others.
        assert (passing(at_once), places.taken) == (0, 14)
        with places.take(2):
            assert places.taken == 16
    for pair in pairs:
        pair.close()
    assert places.taken == 0


def test_one_place_is_not_enough_to_begin():
    places = Places(3)
    with places.take(2), pytest.raises(NoPlace) as refused, places.take(GROUP):
        pass
    assert (refused.value.retry_after, places.taken) == (1, 0)


class Guests:
    """Who wants into a room of ten.

    Attributes:
        room: of ten.
        came: names in the order in which they came in.
        inside: what each holds that is in now.
        most: that was ever held.
    """

    def __init__(self) -> None:
        self.room = Room(10)
        self.came: list[str] = []
        self.inside: dict[str, int] = {}
        self.most = 0
        self._go: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def arrive(self, name: str, count: int) -> None:
        """Somebody comes, and is in or in line."""
        self._go[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._stay(name, count))
        await settled()

    async def leave(self, name: str) -> None:
        """Somebody who is in goes out."""
        self._go[name].set()
        await self._tasks[name]
        await settled()

    def cancel(self, name: str) -> None:
        """Somebody is told to give up, wherever he is."""
        self._tasks[name].cancel()

    async def _stay(self, name: str, count: int) -> None:
        async with self.room.take(count):
            self.came.append(name)
            self.inside[name] = min(count, 10)
            self.most = max(self.most, sum(self.inside.values()))
            try:
                await self._go[name].wait()
            finally:
                del self.inside[name]

    async def close(self) -> None:
        """Everybody goes, in the order in which they came in."""
        while waiting := [name for name, task in self._tasks.items() if not task.done()]:
            for name in [*self.inside]:
                self._go[name].set()
            await asyncio.wait([self._tasks[name] for name in waiting], timeout=0)


async def settled() -> None:
    """Everybody has done what he can do now."""
    for _ in range(5):
        await asyncio.sleep(0)


def in_a_room(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_who_needs_much_room_is_not_overtaken_for_ever():
    async def run() -> None:
        guests = Guests()
        await guests.arrive("small 0", 4)
        await guests.arrive("large", 8)
        for n in range(1, 20):  # there is always one in, and one who would fit beside him
            await guests.arrive(f"small {n}", 4)
        assert guests.came == ["small 0"]
        await guests.leave("small 0")
        assert guests.came == ["small 0", "large"]
        await guests.leave("large")
        assert guests.came == ["small 0", "large", "small 1", "small 2"]
        await guests.close()
        assert guests.came == ["small 0", "large", *(f"small {n}" for n in range(1, 20))]
        assert guests.most <= 10

    in_a_room(run())


def test_who_needs_more_than_all_has_all():
    async def run() -> None:
        guests = Guests()
        await guests.arrive("huge", 1000)
        await guests.arrive("small", 1)
        assert guests.inside == {"huge": 10}
        await guests.leave("huge")
        assert guests.inside == {"small": 1}
        await guests.close()

    in_a_room(run())


def test_who_needs_no_room_does_not_wait_for_any():
    async def run() -> None:
        guests = Guests()
        await guests.arrive("all", 10)
        await guests.arrive("large", 8)
        await guests.arrive("text", 0)
        assert guests.inside == {"all": 10, "text": 0}
        await guests.leave("all")
        assert guests.inside == {"large": 8, "text": 0}
        await guests.close()

    in_a_room(run())


def test_who_gives_up_in_line_keeps_nobody_waiting():
    async def run() -> None:
        guests = Guests()
        await guests.arrive("first", 4)
        await guests.arrive("large", 8)
        await guests.arrive("small", 4)
        guests.cancel("large")
        await settled()
        assert guests.inside == {"first": 4, "small": 4}
        await guests.close()

    in_a_room(run())


def test_who_gives_up_as_he_is_let_in_leaves_no_room_behind_that_nobody_has():
    async def run(in_line_at_first: bool) -> None:
        guests = Guests()
        async with guests.room.take(10):
            await guests.arrive("large", 10)
            await guests.arrive("small", 4)
            if in_line_at_first:  # told so before the room is free, but not yet gone
                guests.cancel("large")
        if not in_line_at_first:  # let in, but told to give up before he knows
            guests.cancel("large")
        await settled()
        assert guests.came == ["small"]
        await guests.arrive("beside", 6)
        assert guests.inside == {"small": 4, "beside": 6}
        await guests.close()

    for in_line_at_first in (True, False):
        in_a_room(run(in_line_at_first))


@pytest.mark.parametrize("seed", range(5))
def test_whoever_comes_and_goes_all_room_is_free_at_the_end(seed: int):
    draw = random.Random(seed)

    async def run() -> None:
        guests = Guests()
        known: list[str] = []
        for n in range(300):
            match draw.randrange(4):
                case 0 | 1:
                    known.append(f"guest {n}")
                    await guests.arrive(known[-1], draw.choice([0, 1, 3, 7, 12]))
                case 2 if guests.inside:
                    with suppress(asyncio.CancelledError):
                        await guests.leave(draw.choice([*guests.inside]))
                case _ if known:
                    guests.cancel(draw.choice(known))
                case _:
                    pass
        await guests.close()
        assert guests.most <= 10
        await guests.arrive("all", 10)
        assert guests.inside == {"all": 10}
        await guests.close()

    in_a_room(run())
