# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from itertools import islice

from tests.e2e.soak.faults import FAULTS
from tests.e2e.soak.schedule import LONGEST_PAUSE, SHORTEST_PAUSE, pick, schedule

WEIGHTS = {"often": 3.0, "seldom": 1.0}


def test_a_seed_gives_the_same_faults_again_and_another_seed_gives_others():
    first = list(islice(schedule(7, WEIGHTS), 50))
    assert first == list(islice(schedule(7, WEIGHTS), 50))
    assert first != list(islice(schedule(8, WEIGHTS), 50))


def test_every_draw_orders_all_faults_and_pauses_within_bounds():
    for planned in islice(schedule(1, WEIGHTS), 200):
        assert sorted(planned.order) == sorted(WEIGHTS)
        assert SHORTEST_PAUSE <= planned.pause <= LONGEST_PAUSE
        assert 0 <= planned.choice < 1


def test_a_fault_of_three_times_the_weight_is_drawn_three_times_as_often():
    drawn = Counter(p.order[0] for p in islice(schedule(1, WEIGHTS), 4000))
    assert 2.5 < drawn["often"] / drawn["seldom"] < 3.5


def test_a_choice_picks_the_first_to_the_last_candidate():
    assert [pick("abc", c) for c in (0.0, 0.34, 0.99)] == ["a", "b", "c"]
    assert pick(["only"], 1.0) == "only"


def test_faults_have_names_of_their_own_and_those_that_last_are_short():
    assert len({f.name for f in FAULTS}) == len(FAULTS)
    assert all(0 <= f.seconds <= 60 and f.weight > 0 for f in FAULTS)
