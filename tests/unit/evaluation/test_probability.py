# SPDX-License-Identifier: Apache-2.0
"""Calibrated probabilities of judges whose confidence is known."""

import math

import numpy as np
import pytest

from r1reward_trainer.evaluation import metrics, probability
from r1reward_trainer.evaluation.predictions import ORDERS
from tests.digits.model import build_processor
from tests.unit.evaluation.builders import LOG_ODDS, judged, right, rows

TOKENIZER = build_processor().tokenizer
ONE, TWO = (TOKENIZER.encode(digit, add_special_tokens=False)[0] for digit in "12")


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def rivals(tokens: list[int], *log_probs: tuple[float, float]) -> dict[int, tuple[float, float]]:
    places = [place for place, token in enumerate(tokens) if token in (ONE, TWO)]
    return dict(zip(places, log_probs, strict=True))


def sampled(rows: int, true_temperature: float, seed: int = 0) -> np.ndarray:
    """Margins of a judge whose log-odds are too large by a factor."""
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(0, 6, rows)
    gold = generator.random(rows) < 1 / (1 + np.exp(-log_odds / true_temperature))
    return np.where(gold, log_odds, -log_odds)


def test_the_digit_behind_the_answer_tag_counts_and_no_other():
    tokens = ids("<think>1,(2)2</think><answer>2</answer>")
    known = rivals(tokens, (-9.0, -1.0), (-9.0, -1.0), (-9.0, -1.0), (-3.0, -0.5))
    assert probability.verdict_log_odds(tokens, known, TOKENIZER.decode) == -2.5


def test_a_digit_that_no_answer_tag_precedes_has_no_probability():
    tokens = ids("the answer is 1")
    assert (
        probability.verdict_log_odds(tokens, {len(tokens) - 1: (-1, -2)}, TOKENIZER.decode) is None
    )
    assert probability.verdict_log_odds(tokens, {}, TOKENIZER.decode) is None


def test_a_preference_for_a_place_cancels_over_both_orders():
    opinion, bias = 1.5, 7.0
    assert probability.row_log_odds([opinion + bias, -opinion + bias]) == opinion


def test_an_order_without_a_verdict_counts_as_even_odds():
    assert probability.row_log_odds([3.0, None]) == 1.5
    assert probability.row_log_odds([[math.nan, -3.0], [math.nan, math.nan]]).tolist() == [1.5, 0]
    assert probability.probability(probability.row_log_odds([None, None]), 2.0) == 0.5


def test_the_probability_of_the_other_answer_is_the_rest():
    for log_odds in (-40.0, -0.3, 0.0, 12.0):
        both = [probability.probability(np.float64(x), 1.7) for x in (log_odds, -log_odds)]
        assert sum(both) == pytest.approx(1)


@pytest.mark.parametrize("true", [0.5, 1.0, 4.0])
def test_the_temperature_of_an_over_or_underconfident_judge_is_found(true):
    assert probability.fit_temperature(sampled(20_000, true)) == pytest.approx(true, rel=0.05)


def test_a_judge_that_is_always_right_on_few_rows_is_not_taken_to_be_certain():
    temperature = probability.fit_temperature(np.full(8, 1.0))
    assert probability.probability(np.float64(1.0), temperature) == pytest.approx(9 / 10, abs=1e-4)


def test_verdicts_that_tell_nothing_become_even_odds():
    generator = np.random.default_rng(1)
    noise = generator.normal(0, 5, 2000)
    calibrated = noise / probability.cross_fitted(noise, [str(i) for i in range(2000)])
    assert probability.brier_by_row(calibrated).mean() == pytest.approx(0.25, abs=0.01)
    assert probability.fit_temperature(np.empty(0)) == 1.0
    assert probability.fit_temperature(np.zeros(3)) == 1.0


def test_calibration_lowers_the_error_on_rows_that_it_was_not_fitted_on():
    margins = sampled(4000, 5.0)
    calibrated = margins / probability.cross_fitted(margins, [str(i) for i in range(4000)])
    before, after = (
        probability.expected_calibration_error(probability.reliability(m))
        for m in (margins, calibrated)
    )
    assert before > 0.15
    assert after < 0.03
    assert probability.brier_by_row(calibrated).mean() < probability.brier_by_row(margins).mean()


def test_a_rows_own_outcome_does_not_change_its_temperature():
    ids = [f"row-{i}" for i in range(60)]
    margins = sampled(60, 2.0)
    flipped = margins.copy()
    flipped[17] = -50.0
    before, after = (probability.cross_fitted(m, ids) for m in (margins, flipped))
    assert after[17] == before[17]
    assert (after != before).sum() > 30


def test_rows_of_one_id_share_a_temperature_and_are_not_fitted_on_each_other():
    margins = np.array([5.0, -5.0, 1.0, 1.0, 1.0])
    same = probability.cross_fitted(margins, ["question"] * 2 + ["a", "b", "c"])
    assert same[0] == same[1]
    assert probability.cross_fitted(margins[:2], ["question"] * 2).tolist() == [1.0, 1.0]


def test_bins_hold_all_rows_and_their_error_is_the_distance_from_the_diagonal():
    # Confidence 0.75, three of four right: calibrated. Confidence 0.95, half right: off by 0.45.
    sure, surer = math.log(3), math.log(19) + 1e-9
    margins = np.array([sure, sure, sure, -sure, surer, -surer, 0.0])
    bins = probability.reliability(margins)
    assert [(b.rows, b.low) for b in bins] == [(1, 0.5), (4, 0.75), (2, pytest.approx(0.95))]
    assert [b.accuracy for b in bins] == [0.5, 0.75, 0.5]
    assert probability.expected_calibration_error(bins) == pytest.approx(2 / 7 * 0.45)
    assert probability.brier_by_row(margins)[-1] == 0.25


def test_certainty_is_in_the_last_bin():
    (last,) = probability.reliability(np.array([9999.0]))
    assert (last.high, last.confidence, last.accuracy) == (1.0, 1.0, 1.0)


def test_margins_are_those_of_the_better_answer_whichever_it_is():
    assert metrics.margin_by_row(judged(rows(4), right(rows(4)))).tolist() == [LOG_ODDS] * 4
    assert metrics.margin_by_row(judged(rows(4), lambda *_: 1)).tolist() == [0.0] * 4
    once = judged(rows(2), lambda i, order, _: 1 if order == ORDERS[0] else None)
    assert metrics.margin_by_row(once).tolist() == [LOG_ODDS / 2, -LOG_ODDS / 2]
