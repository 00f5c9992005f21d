# SPDX-License-Identifier: Apache-2.0
"""Figures of judges whose behaviour is known (acceptance facts 25 and 26 of the paper's method)."""

import math
from dataclasses import replace
from itertools import groupby, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1reward_trainer.evaluation import metrics
from r1reward_trainer.evaluation.figures import by_source
from r1reward_trainer.evaluation.predictions import ORDERS, judgements, to_table
from r1reward_trainer.method.voting import majority, votes_needed
from tests.unit.evaluation.builders import judged, predictions, right, rows

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
        any_right += probability * (1 in votes)
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


def test_ties_and_silence_are_shown_apart():
    votes = {1: 1, 2: 2, 3: None, 4: 1}
    voters = judged(rows(3), lambda _, __, sample: votes.get(sample), votes=4)
    assert [metrics.tied_share(voters, k) for k in (1, 2, 3, 4)] == [0, 1, 1, 0]
    assert metrics.weighted_open_share(voters, 2) == 0
    silent = judged(rows(3), lambda *_: None, votes=2)
    assert (metrics.tied_share(silent, 2), metrics.silent_share(silent, 2)) == (0, 1)


def stopped_early(says, ks, changed=lambda p: p):
    """The judge's answers, and those without the votes that early stopping leaves out."""
    whole = [changed(p) for p in predictions(ROWS, says, votes=max(ks))]
    kept = []
    for _, answers in groupby(whole, key=lambda p: (p.row, p.order)):
        prompt = list(answers)
        drawn = 0
        while more := votes_needed([p.verdict for p in prompt[1 : 1 + drawn]], ks):
            drawn += more
        kept += prompt[: 1 + drawn]
    return judgements(to_table(whole), "rl"), judgements(to_table(kept), "rl")


def test_voting_is_the_same_and_any_a_lower_bound_when_votes_are_left_out():
    generator = np.random.default_rng(5)
    verdicts = generator.choice([1, 2, 0], p=[0.6, 0.3, 0.1], size=(40, 2, 8))
    whole, early = stopped_early(
        lambda i, order, sample: int(verdicts[i, ORDERS.index(order), sample]) or None, (3, 7)
    )
    for k in (3, 7):
        assert (metrics.voting_by_row(early, k) == metrics.voting_by_row(whole, k)).all()
        exact, bound = (metrics.any_by_row(j, k).mean() for j in (whole, early))
        assert bound <= exact <= bound + metrics.any_open_share(early, k)
        assert metrics.any_open_share(whole, k) == 0
    assert metrics.votes_asked(early, 7) < metrics.votes_asked(whole, 7) == 7


def test_weighted_voting_may_differ_where_it_is_open_and_nowhere_else():
    generator = np.random.default_rng(5)
    is_right = generator.random((40, 2, 16)) < 0.6
    sure = np.where(is_right, 4.0, 0.4) * generator.exponential(1.0, size=(40, 2, 16))

    def says(i, order, sample):
        gold = right(ROWS)(i, order, sample) or 0
        return gold if is_right[i, ORDERS.index(order), sample] else 3 - gold

    def weighed(p):
        odds = float(sure[p.row, ORDERS.index(p.order), p.sample])
        return replace(p, log_odds=odds * (3 - 2 * p.verdict))

    whole, early = stopped_early(says, (7, 15), weighed)
    differ = []
    for k in (7, 15):
        all_votes, some = (metrics.weighted_voting_by_row(j, k) for j in (whole, early))
        is_open = metrics.weighted_open_share(early, k)
        differ.append(np.abs(all_votes - some).mean())
        assert differ[-1] <= is_open < 1
        assert metrics.weighted_open_share(whole, k) == 0
    assert max(differ) > 0


@pytest.mark.parametrize(
    ("k", "odds", "share"),
    [
        (4, 9.0, 0),  # three votes of nearly 1 each against the one that is missing
        (6, 9.0, 1),  # against three of up to 1
        (4, -9.0, 1),  # hardly any weight: the verdicts are the less likely ones
        (3, -9.0, 0),  # no vote is missing
    ],
)
def test_a_weighted_vote_is_open_while_the_missing_votes_could_turn_it(k, odds, share):
    def prediction(p):
        sign = 3 - 2 * p.gold
        return replace(p, verdict=p.gold, log_odds=sign * (odds if p.sample else 9.0))

    said = (prediction(p) for p in predictions(ROWS, right(ROWS), votes=3))
    assert metrics.weighted_open_share(judgements(to_table(said), "rl"), k) == share


def test_three_sure_votes_outweigh_four_that_are_hardly_more_than_even():
    def prediction(p, sure):
        verdict = 3 - p.gold if p.sample > 3 else p.gold
        odds = {0: 3.0}.get(p.sample, 0.05 if p.sample > 3 else sure)
        return replace(p, verdict=verdict, log_odds=odds * (3 - 2 * verdict))

    def votes(sure):
        said = predictions(ROWS, lambda *_: 1, votes=7)
        return judgements(to_table(prediction(p, sure) for p in said), "rl")

    assert metrics.voting_by_row(votes(6.0), 7).mean() == 0
    assert metrics.weighted_voting_by_row(votes(6.0), 7).mean() == 1
    assert metrics.weighted_voting_by_row(votes(0.05), 7).mean() == 0


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_a_vote_weighs_the_same_at_whatever_temperature_it_was_sampled(temperature):
    """Servers divide the log-odds of votes by it, and those of greedy answers by nothing. Two votes
    of 1.7 outweigh three of 0.18, but not if both are four times as much, or half."""

    def prediction(p):
        verdict = 3 - p.gold if p.sample > 2 else p.gold
        odds = (0.18 if p.sample > 2 else 1.7) * (3 - 2 * verdict)
        # Rows of one item are in one fold, and no other rows make a calibration of 1.
        p = replace(p, item="the same", verdict=verdict, log_odds=odds)
        return replace(p, log_odds=odds / temperature, temperature=temperature) if p.sample else p

    said = (prediction(p) for p in predictions(ROWS, lambda *_: 1, votes=5))
    voters = judgements(to_table(said), "rl")
    assert np.abs(voters.log_odds[0, 0]) == pytest.approx([1.7, 1.7, 1.7, 0.18, 0.18, 0.18])
    assert metrics.weighted_voting_by_row(voters, 5).mean() == 1


def test_votes_without_probabilities_weigh_the_same():
    said = [replace(p, log_odds=None) for p in predictions(ROWS, right(ROWS), votes=3)]
    voters = judgements(to_table(said), "rl")
    assert metrics.weighted_voting_by_row(voters, 3).tolist() == [1.0] * 40


def test_costs_are_means_over_all_answers():
    voters = judged(rows(3), lambda *_: 1, votes=2)
    assert metrics.tokens_per_judgement(voters) == 11
    assert metrics.seconds_per_judgement(voters) == 0.5
    assert metrics.reflecting(voters) == 1


def test_figures_by_source_are_in_the_order_of_names_where_every_row_has_its_own():
    names = [f"https://example.org/pairs/{n:05}" for n in range(20_000)]
    by_row = np.arange(20_000) % 3 / 2
    found = by_source(names[::-1], by_row[::-1])
    assert [f.source for f in found] == names
    assert [f.accuracy for f in found] == by_row.tolist()
    (charts, scenes) = by_source(["scenes", "charts", "charts"], np.array([1.0, 0.5, 0.0]))
    assert (charts.source, charts.rows, charts.accuracy) == ("charts", 2, 0.25)
    assert (scenes.rows, scenes.accuracy) == (1, 1.0)


def test_sources_are_told_apart_to_the_last_letter():
    found = by_source(["a", "a\0", "a"], np.array([1.0, 0.0, 1.0]))
    assert [(f.source, f.rows, f.accuracy) for f in found] == [("a", 2, 1.0), ("a\0", 1, 0.0)]
