# SPDX-License-Identifier: Apache-2.0
"""The reward of whole samples, by the paper's rules and by those of the released code.

The numbers are those of the paper's formula, and what the released verifier and judge parser
gave when they were run on these texts. The released parser's reward for an exception is not
among them: no reward comes from an exception, whatever is asked for.
"""

from typing import Literal

import pytest

from r1reward_api.resource.training import Algorithm
from r1reward_trainer.method.reasons import SAID, ConsistencyReason
from r1reward_trainer.verifier.protocol import Sample
from r1reward_trainer.verifier.scoring import Scoring

OURS = Scoring(Algorithm())
RELEASED = Scoring(Algorithm(release_compatible=True))
GOOD = "<think>a\nb\nc\nd</think><answer>2</answer>"


def rewarded(scoring, response, judge, gold: Literal[1, 2] = 2):
    """Result, format, consistency and total, given the judge's answer to what is asked."""
    sample = Sample(id="a", response=response, gold=gold)
    question = scoring.question(sample)
    asked = not isinstance(question, ConsistencyReason)
    why = SAID[scoring.read_judgement(judge)] if asked else question
    reward = scoring.reward(sample, why)
    return reward.result, reward.format, reward.consistency, reward.total


@pytest.mark.parametrize(
    ("response", "judge", "terms"),
    [
        (GOOD, "1", (1, 1, 1, 2.0)),
        (GOOD, "neither", (1, 1, 0, 1.5)),
        (GOOD, "0", (1, 1, -1, 1.0)),
        (GOOD.replace("2", "1"), "1", (0, 1, 0, 0.5)),
        ("<think>a</think> <answer>2</answer>", "1", (1, 0, 1, 1.5)),
        ("<think>a</think> <answer>2</answer>", "0", (1, 0, -1, 0.5)),
        ("", "1", (0, 0, 0, 0.0)),
    ],
)
def test_the_reward_is_the_papers(response, judge, terms):
    assert rewarded(OURS, response, judge) == terms


@pytest.mark.parametrize(
    ("response", "ours", "released"),
    [
        ("1 or 2", 0, 1),
        ("1 2", 0, 1),
        ("Response 2", 0, 1),
        ("On the whole, Response 2 is better", 0, 1),
        ("1/2", 0, 0),
        ("", 0, 0),
        ("<answer>1 or 2</answer>", 0, 1),
        ("<answer>Response 2</answer>", 0, 1),
        ("<answer>1/2</answer>", 0, 0),
        ("<answer></answer>", 0, 0),
        ("<answer>2</answer><answer>1</answer>", 0, 1),
        ("<answer>1/0</answer>", 0, 0),
    ],
)
def test_only_the_strict_grammar_gives_a_result_but_the_released_codes_can_be_had(
    response, ours, released
):
    assert rewarded(OURS, response, "1")[:2] == (ours, 0)
    assert rewarded(RELEASED, response, "1")[:2] == (released, 0)


@pytest.mark.parametrize(
    ("judge", "ours", "released"),
    [
        ("1", 1, 1),
        ("0", -1, -1),
        ("Output: 1", 1, 1),
        ("10", 0, -1),
        ("The answer is 1, not 0", 0, -1),
        ("1.0", 0, -1),
        ("match", 0, 0),
    ],
)
def test_only_a_bare_digit_of_the_judge_counts_but_the_released_reading_can_be_had(
    judge, ours, released
):
    assert rewarded(OURS, GOOD, judge)[2] == ours
    assert rewarded(RELEASED, GOOD, judge)[2] == released


def test_the_judge_is_shown_the_last_three_lines_and_by_the_release_the_closing_tag():
    sample = Sample(id="a", response=GOOD, gold=2)
    assert "b;c;d</think>" in str(RELEASED.question(sample))
    assert "\nb\nc\nd\n" in str(OURS.question(sample))
    assert "response 2 is better" in str(RELEASED.question(sample))


def test_the_release_asks_the_judge_for_every_sample_and_gains_nothing_by_it():
    sample = Sample(id="a", response=GOOD, gold=1)
    assert not isinstance(RELEASED.question(sample), ConsistencyReason)
    assert OURS.question(sample) is ConsistencyReason.RESULT_IS_0
    assert rewarded(RELEASED, GOOD, "1", gold=1)[3] == 0.5
