# SPDX-License-Identifier: Apache-2.0
"""Figures of judges whose behaviour is known (acceptance facts 25 and 26 of the paper's method)."""

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1reward_trainer.evaluation import metrics
from r1reward_trainer.evaluation.predictions import ORDERS
from r1reward_trainer.method.voting import any_correct, majority
from tests.unit.evaluation.builders import judged, right, rows

ROWS = rows(40)
CONSTANT = judged(ROWS, lambda *_: 1)
PERFECT = judged(ROWS, right(ROWS))


def test_a_judge_that_always_says_1_is_at_chance_and_never_agrees_with_itself():
    assert metrics.accuracy_by_row(CONSTANT).tolist() == [0.5] * 40
    assert metrics.agreement_by_row(CONSTANT).mean() == 0
    assert metrics.says_first(CONSTANT) == 1
    assert metrics.both_right_by_row(CONSTANT).mean() == 0


def test_the_published_protocol_gives_that_judge_full_marks():
    assert metrics.accuracy_by_slot(CONSTANT) == (1.0, 0.0)


def test_a_perfect_judge_is_right_and_unbiased_in_every_figure():
    assert metrics.accuracy_by_row(PERFECT).mean() == 1
    assert metrics.accuracy_by_slot(PERFECT) == (1.0, 1.0)
    assert metrics.agreement_by_row(PERFECT).mean() == 1
    assert metrics.says_first(PERFECT) == 0.5
    assert metrics.valid_by_row(PERFECT).mean() == 1


def test_a_missing_verdict_is_wrong_agrees_with_nothing_and_is_not_counted_as_a_place():
    silent_when_swapped = judged(ROWS, lambda _, order, __: 1 if order == ORDERS[0] else None)
    assert metrics.accuracy_by_row(silent_when_swapped).mean() == 0.25
    assert metrics.agreement_by_row(silent_when_swapped).mean() == 0
    assert metrics.valid_by_row(silent_when_swapped).mean() == 0.5
    assert metrics.says_first(silent_when_swapped) == 1
    assert math.isnan(metrics.says_first(judged(ROWS, lambda *_: None)))


def test_lengths_are_those_of_the_greedy_answers():
    assert metrics.response_lengths(judged(rows(3), lambda *_: 1)) == (11, 11, 12)


def test_ties_and_answers_without_a_verdict_do_not_win_a_vote():
    gold_is_1 = rows(1)
    votes = {1: 1, 2: None, 3: 2, 4: 1}
    voters = judged(gold_is_1, lambda _, __, sample: votes.get(sample), votes=4)
    by_k = [metrics.voting_by_row(voters, k)[0] for k in (1, 2, 3, 4)]
    # Given order, gold 1: 1 | 1 | tie | 1. Swapped, gold 2: wrong | wrong | tie | wrong.
    assert by_k == [0.5, 0.5, 0.0, 0.5]
    assert [metrics.any_by_row(voters, k)[0] for k in (1, 2, 3, 4)] == [0.5, 0.5, 1.0, 1.0]


def test_votes_are_not_the_greedy_answer():
    greedy_wrong = judged(
        ROWS,
        lambda i, o, s: right(ROWS)(i, o, s) if s else 3 - (right(ROWS)(i, o, s) or 0),
        votes=3,
    )
    assert metrics.accuracy_by_row(greedy_wrong).mean() == 0
    assert metrics.voting_by_row(greedy_wrong, 3).mean() == 1


def test_more_votes_than_were_sampled_are_refused():
    with pytest.raises(ValueError, match="votes@5 needs 5 votes, there are 0"):
        metrics.voting_by_row(PERFECT, 5)


@pytest.mark.parametrize(
    ("k", "voting", "any_"), [(5, 0.68256, 0.98976), (15, 0.7869, 1 - 0.4**15)]
)
def test_independent_votes_of_60_percent_give_the_binomial_figures(k, voting, any_):
    majority_right = any_right = 0.0
    for votes in product((1, 2), repeat=k):
        probability = 0.6 ** votes.count(1) * 0.4 ** votes.count(2)
        majority_right += probability * (majority(votes) == 1)
        any_right += probability * any_correct(votes, 1)
    assert majority_right == pytest.approx(voting, abs=5e-5)
    assert any_right == pytest.approx(any_, abs=5e-6)


def test_any_at_15_is_nearly_1_for_a_coin():
    assert metrics.chance_of_any(15) == pytest.approx(0.99997, abs=5e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.sampled_from([1, 2, None])] * 2), min_size=1, max_size=12))
def test_accuracy_is_the_mean_of_both_slots_whatever_the_judge_says(said):
    figures = judged(rows(len(said)), lambda i, order, _: said[i][ORDERS.index(order)])
    first, second = metrics.accuracy_by_slot(figures)
    assert metrics.accuracy_by_row(figures).mean() == pytest.approx((first + second) / 2)
    assert (metrics.both_right_by_row(figures) <= metrics.agreement_by_row(figures)).all()


def test_one_drawn_order_hides_the_bias_that_both_orders_show():
    assert abs(metrics.seeded_order(judged(rows(2000), lambda *_: 1), 0) - 0.5) < 0.05
    assert metrics.seeded_order(PERFECT, 1) == 1
    assert metrics.seeded_order(CONSTANT, 1) == metrics.seeded_order(CONSTANT, 1)


def test_ties_are_shown_apart():
    votes = {1: 1, 2: 2, 3: None, 4: 1}
    voters = judged(rows(3), lambda _, __, sample: votes.get(sample), votes=4)
    assert [metrics.tied_share(voters, k) for k in (1, 2, 3, 4)] == [0, 1, 1, 0]
