# SPDX-License-Identifier: Apache-2.0
"""The reward formula and the judge's scale."""

import pytest

from r1reward_trainer.method.reward import JudgeOutcome, consistency_value, total_reward


@pytest.mark.parametrize(
    ("fmt", "result", "consistency", "total"),
    [
        (1, 1, 1, 2.0),
        (1, 1, 0, 1.5),
        (1, 1, -1, 1.0),
        (1, 0, 1, 0.5),
        (1, 0, 0, 0.5),
        (1, 0, -1, 0.5),
        (0, 1, 1, 1.5),
        (0, 1, -1, 0.5),
        (0, 0, 1, 0.0),
        (0, 0, -1, 0.0),
    ],
)
def test_a_wrong_verdict_gains_nothing_by_agreeing_with_its_chain(fmt, result, consistency, total):
    assert total_reward(result, consistency, fmt) == total


def test_the_weights_are_those_of_the_algorithm():
    assert total_reward(1, 1, 1, consistency_weight=0.25, format_weight=0.1) == 1.35


def test_only_the_judges_clear_word_or_its_refusal_of_the_text_moves_consistency():
    signed = {outcome.value: consistency_value(outcome, "Signed") for outcome in JudgeOutcome}
    zero_one = {outcome.value: consistency_value(outcome, "ZeroOne") for outcome in JudgeOutcome}
    neutral = {"unknown": 0, "unavailable": 0, "skipped": 0}
    assert signed == {"match": 1, "mismatch": -1, "refused": -1, **neutral}
    assert zero_one == {"match": 1, "mismatch": 0, "refused": 0, **neutral}
