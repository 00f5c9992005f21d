# SPDX-License-Identifier: Apache-2.0
"""Rankings of n answers out of preferences between two."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from r1reward_trainer.scoring.ranking import Preference, bradley_terry, rank, round_robin

probabilities = st.floats(0, 1)


@st.composite
def judged(draw: st.DrawFn, least: int = 2, most: int = 7) -> tuple[int, list[Preference]]:
    """A whole round robin."""
    n = draw(st.integers(least, most))
    return n, [Preference(i, j, draw(probabilities)) for i, j in round_robin(n)]


def of_strengths(strengths: list[float]) -> list[Preference]:
    return [
        Preference(i, j, float(expit(strengths[i] - strengths[j])))
        for i, j in round_robin(len(strengths))
    ]


def test_every_two_answers_meet_once():
    assert round_robin(4) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert round_robin(1) == []


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_strengths_are_found_again_in_the_probabilities_that_they_imply(strengths: list[float]):
    wins = np.zeros((len(strengths), len(strengths)))
    for one in of_strengths(strengths):
        wins[one.first, one.second] = one.probability
        wins[one.second, one.first] = 1 - one.probability
    mean = sum(strengths) / len(strengths)
    assert bradley_terry(wins, prior=1e-9) == pytest.approx([s - mean for s in strengths], abs=1e-4)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_a_judge_with_strengths_has_no_cycles(strengths: list[float]):
    found = rank(len(strengths), of_strengths(strengths))
    assert found.cycles == ()
    assert (found.cyclic_triads, found.consistence) == (0, 1.0)


@given(judged())
def test_in_a_round_robin_an_answers_rank_is_that_of_its_mean_probability(group):
    n, preferences = group
    won = [0.0] * n
    for one in preferences:
        won[one.first] += one.probability
        won[one.second] += 1 - one.probability
    found = rank(n, preferences)
    for i, j in permutations(range(n), 2):
        if won[i] > won[j] + 1e-6:
            assert found.ranks[i] < found.ranks[j]


@given(judged())
def test_win_rates_are_the_judges_own_drawn_towards_one_half_by_the_prior_alone(group):
    n, preferences = group
    won = [0.0] * n
    for one in preferences:
        won[one.first] += one.probability / (n - 1)
        won[one.second] += (1 - one.probability) / (n - 1)
    expected = [(w + 0.01) / 1.02 for w in won]
    assert rank(n, preferences).win_rates == pytest.approx(expected, abs=1e-6)


@given(judged(), st.randoms())
def test_names_of_the_answers_do_not_matter(group, random):
    n, preferences = group
    names = list(range(n))
    random.shuffle(names)
    renamed = [Preference(names[p.first], names[p.second], p.probability) for p in preferences]
    random.shuffle(renamed)
    before, after = rank(n, preferences), rank(n, renamed)
    assert [after.strengths[name] for name in names] == pytest.approx(before.strengths, abs=1e-6)
    assert [after.ranks[name] for name in names] == list(before.ranks) or _close(before.strengths)
    assert after.cyclic_triads == before.cyclic_triads
    assert len(after.cycles) == len(before.cycles)


def _close(strengths: tuple[float, ...]) -> bool:
    """Whether rounding decides between two."""
    ordered = sorted(strengths)
    return any(b - a < 1e-6 for a, b in pairwise(ordered))


@given(judged())
def test_the_scale_is_the_same_in_every_group(group):
    n, preferences = group
    found = rank(n, preferences)
    assert sum(found.strengths) == pytest.approx(0, abs=1e-9)
    assert sum(found.win_rates) == pytest.approx(n / 2)
    assert all(math.isfinite(s) for s in found.strengths)
    assert all(0 < w < 1 for w in found.win_rates)
    assert min(found.ranks) == 1


@given(judged(least=3))
def test_a_reported_cycle_is_one(group):
    n, preferences = group
    better = {(p.first, p.second): p.probability for p in preferences}
    better |= {(j, i): 1 - p for (i, j), p in better.items()}
    found = rank(n, preferences)
    for cycle in found.cycles:
        assert len(set(cycle)) == len(cycle) >= 3
        for one, other in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            assert better[one, other] > 0.5
    triads = sum(
        better[i, j] - 0.5 > 1e-9 and better[j, k] - 0.5 > 1e-9 and better[k, i] - 0.5 > 1e-9
        for i, j, k in permutations(range(n), 3)
    )
    assert found.cyclic_triads == triads / 3
    assert any(len(cycle) == 3 for cycle in found.cycles) >= bool(triads)
    assert 0 <= found.consistence <= 1


def test_rock_paper_scissors_is_a_cycle_of_equals_and_the_well_above_them_is_not():
    found = rank(
        4,
        [
            Preference(0, 1, 0.9),
            Preference(1, 2, 0.9),
            Preference(2, 0, 0.9),
            *(Preference(3, i, 0.8) for i in range(3)),
        ],
    )
    assert found.cycles == ((0, 1, 2),)
    assert (found.cyclic_triads, found.consistence) == (1, 0.5)
    assert found.ranks == (2, 2, 2, 1)


def test_a_pair_gets_the_log_odds_of_its_probability():
    found = rank(2, [Preference(0, 1, 0.75)])
    assert found.strengths[0] - found.strengths[1] == pytest.approx(logit(0.76 / 1.02))
    assert found.ranks == (1, 2)


def test_certain_judges_leave_strengths_finite():
    found = rank(3, [Preference(0, 1, 1.0), Preference(0, 2, 1.0), Preference(1, 2, 1.0)])
    assert found.ranks == (1, 2, 3)
    assert max(found.strengths) < 10


def test_answers_that_were_never_compared_are_equals():
    assert rank(3, []).ranks == (1, 1, 1)
    assert rank(3, [Preference(0, 1, 0.9)]).ranks == (1, 3, 2)


@pytest.mark.parametrize(
    "wrong", [Preference(0, 2, 0.5), Preference(1, 1, 0.5), Preference(0, 1, math.nan)]
)
def test_what_is_no_preference_is_refused(wrong: Preference):
    with pytest.raises(ValueError, match=r"among 2 answers|no probability"):
        rank(2, [wrong])
