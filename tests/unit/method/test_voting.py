# SPDX-License-Identifier: Apache-2.0
"""Voting@K and any@K."""

import itertools

import pytest

from r1reward_trainer.method.voting import majority, votes_needed, weighted_lead


@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        ([1, 1, 2], 1),
        ([1, None, 2, 2, 2], 2),
        ([1, 2], None),
        ([1, 2, None], None),
        ([None], None),
        ([], None),
    ],
)
def test_invalid_votes_are_dropped_and_a_tie_decides_nothing(votes, verdict):
    assert majority(votes) == verdict


def probability(decides, k, q=0.6):
    """Of a set of independent votes, each right with probability q, for which decides is true."""
    return sum(
        q ** sum(v == 1 for v in votes) * (1 - q) ** sum(v == 2 for v in votes)
        for votes in itertools.product((1, 2), repeat=k)
        if decides(votes)
    )


@pytest.mark.parametrize(("k", "share"), [(5, 0.68256), (15, 0.7869)])
def test_independent_votes_gain_as_the_binomial_says(k, share):
    assert probability(lambda v: majority(v) == 1, k) == pytest.approx(share, abs=1e-5)


def test_any_of_five_is_nearly_always_right_by_luck():
    assert probability(lambda v: 1 in v, 5) == pytest.approx(0.98976)


@pytest.mark.parametrize(
    ("votes", "ks", "more"),
    [
        ([], [5], 3),
        ([], [5, 15], 8),
        ([1, 1, 1], [5], 0),
        ([1, 1, 2], [5], 1),
        ([1, 2], [5], 2),
        ([1, 1, 2, 2], [5], 1),
        ([1, 1, None], [5], 1),
        ([None, None, None], [5], 2),
        ([1, 1], [4], 1),  # 2:2 would be a tie
        ([1, 1, 1], [4], 0),
        ([1, 1, 1, 2, 2], [5, 9], 2),
        ([], [], 0),
    ],
)
def test_no_more_votes_are_asked_for_than_could_settle_the_majority(votes, ks, more):
    assert votes_needed(votes, ks) == more


@pytest.mark.parametrize("ks", [(3,), (4,), (5,), (3, 7)])
def test_stopping_early_never_changes_a_majority_and_never_asks_twice_for_nothing(ks):
    saved = 0
    for votes in itertools.product((1, 2, None), repeat=max(ks)):
        drawn = 0
        while more := votes_needed(votes[:drawn], ks):
            drawn += more
        assert drawn <= max(ks)
        assert [majority(votes[: min(k, drawn)]) for k in ks] == [majority(votes[:k]) for k in ks]
        saved += max(ks) - drawn
    assert saved > 0


def test_one_sure_vote_outweighs_two_that_are_not():
    assert majority([1, 2, 2]) == 2
    assert weighted_lead([1, 2, 2], [0.99, 0.45, 0.5]) == pytest.approx(0.04)
    assert weighted_lead([1, None, 2], [0.6, 0.9, 0.7]) == pytest.approx(-0.1)


def test_even_weights_and_no_votes_decide_nothing():
    assert weighted_lead([1, 2], [0.8, 0.8]) == 0
    assert weighted_lead([1, 1, 1, 2, 2, 2], [0.1] * 6) == 0
    assert weighted_lead([None], [0.8]) == 0
