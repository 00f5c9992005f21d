# SPDX-License-Identifier: Apache-2.0
"""Judges whose behaviour is known, through every protocol (acceptance facts 15, 19, 25 and 26)."""

import numpy as np
import pytest

from r1reward_trainer.evaluation import metrics
from r1reward_trainer.evaluation.predictions import ORDERS, Judgements, gold_in_order
from r1reward_trainer.evaluation.protocols import correct_by_row, released_choice
from tests.unit.evaluation.builders import Says, judged, row

GENERATOR = np.random.default_rng(0)
COUNT = 4000
ROWS = [
    row(
        i,
        gold=int(GENERATOR.integers(1, 3)),
        answer1="w" * int(GENERATOR.integers(1, 100)),
        answer2="w" * int(GENERATOR.integers(1, 100)),
    )
    for i in range(COUNT)
]


def chance(share: float, seed: int) -> Says:
    """Right in a share of the answers, each by itself."""
    right = np.random.default_rng(seed).random((COUNT, len(ORDERS), 6)) < share

    def says(position: int, order: str, sample: int) -> int:
        gold = gold_in_order(ROWS[position].gold, order)
        return gold if right[position, ORDERS.index(order), sample] else 3 - gold

    return says


def longest(position: int, order: str, _: int) -> int:
    """The longer answer; the first of two that are equally long."""
    first, second = ROWS[position].answer1, ROWS[position].answer2
    if order == ORDERS[1]:
        first, second = second, first
    return 1 if len(first) >= len(second) else 2


def copies_the_first() -> Judgements:
    """In every row says what it said in the first one."""
    verdict = gold_in_order(ROWS[0].gold, ORDERS[0])
    return judged(ROWS, lambda *_: verdict)


def accuracies(judge: Judgements) -> tuple[float, float, float]:
    """Under both orders, one drawn order, and the release's protocol."""
    both, seeded, release = (
        float(correct_by_row(judge, protocol, 7).mean())
        for protocol in ("BothOrders", "SeededRandom", "Release")
    )
    return both, seeded, release


def agreement(judge: Judgements) -> float:
    return float(metrics.agreement_by_row(judge).mean())


def test_a_constant_1_is_perfect_as_published_and_at_chance_otherwise():
    constant = judged(ROWS, lambda *_: 1)
    both, seeded, release = accuracies(constant)
    assert (both, release) == (0.5, 1.0)
    assert seeded == pytest.approx(0.5, abs=0.03)
    assert agreement(constant) == 0


def test_a_constant_2_is_never_right_as_published():
    both, seeded, release = accuracies(judged(ROWS, lambda *_: 2))
    assert (both, release) == (0.5, 0.0)
    assert seeded == pytest.approx(0.5, abs=0.03)


def test_a_coin_is_at_chance_everywhere_and_agrees_with_itself_half_of_the_time():
    coin = judged(ROWS, chance(0.5, 1))
    assert accuracies(coin) == pytest.approx((0.5, 0.5, 0.5), abs=0.03)
    assert agreement(coin) == pytest.approx(0.5, abs=0.03)
    assert metrics.both_right_by_row(coin).mean() == pytest.approx(0.25, abs=0.03)


def test_a_judge_of_length_agrees_with_itself_and_is_at_chance_where_length_says_nothing():
    by_length = judged(ROWS, longest)
    assert accuracies(by_length) == pytest.approx((0.5, 0.5, 0.5), abs=0.03)
    assert agreement(by_length) > 0.97  # not in rows of equal length


def test_a_perfect_judge_is_perfect_everywhere():
    perfect = judged(ROWS, chance(1.0, 2))
    assert accuracies(perfect) == (1.0, 1.0, 1.0)
    assert agreement(perfect) == 1


def test_a_judge_that_is_right_with_probability_q_has_q_everywhere_and_votes_as_the_binomial_says():
    right = judged(ROWS, chance(0.6, 3), votes=5)
    assert accuracies(right) == pytest.approx((0.6, 0.6, 0.6), abs=0.025)
    assert agreement(right) == pytest.approx(0.6**2 + 0.4**2, abs=0.025)
    assert metrics.voting_by_row(right, 5).mean() == pytest.approx(0.68256, abs=0.02)
    assert metrics.any_by_row(right, 5).mean() == pytest.approx(0.98976, abs=0.005)


def test_a_judge_that_repeats_its_first_verdict_is_a_constant():
    both, seeded, release = accuracies(copies_the_first())
    assert both == 0.5
    assert seeded == pytest.approx(0.5, abs=0.03)
    assert release in (0.0, 1.0)
    assert agreement(copies_the_first()) == 0


def test_a_silent_judge_is_wrong_everywhere():
    assert accuracies(judged(ROWS[:50], lambda *_: None)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("response", "choice"),
    [
        ("<think>x</think><answer>1</answer>", 1),
        ("<answer> 1.0\n</answer>", 1),
        ("<answer>1</answer><answer>2</answer>", 1),
        ("<answer>2</answer><answer>1</answer>", 2),
        ("<answer>1 or 2</answer>", 2),
        ("<answer>1/2</answer>", 2),
        ("<answer>Response 1</answer>", 2),
        ("<answer></answer>", 2),
        ("<answer>3</answer>", 2),
        ("<ANSWER>2</ANSWER> so 1", 1),
        ("Response 2 is worse, so 1", 1),
        ("no digit at all", 2),
        ("", 2),
        ("<answer>nan</answer>", 2),
        ("<answer>1", 1),
    ],
)
def test_the_release_takes_the_first_block_or_the_last_digit_and_all_else_for_2(response, choice):
    assert released_choice(response, "VL-RewardBench") == choice
    assert released_choice(response, "Multimodal RewardBench") == choice


def test_the_releases_script_for_mm_rlhf_stops_at_the_first_line_with_a_digit():
    text = "Response 1 bad\nso 2"
    assert released_choice(text, "MM-RLHF-RewardBench") == 1
    assert released_choice(text, "VL-RewardBench") == 2
    assert released_choice(text, None) == 2
