# SPDX-License-Identifier: Apache-2.0
import asyncio
from contextlib import ExitStack

import pytest

from r1reward_trainer.scoring.places import NoPlace, Places

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
