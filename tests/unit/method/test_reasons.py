# SPDX-License-Identifier: Apache-2.0
"""A reason names the rule that was broken, and agrees with the rules."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from r1reward_trainer.method.reasons import (
    ConsistencyReason,
    FormatReason,
    ResultReason,
    format_reason,
    outcome_of,
    result_reason,
    words,
)
from r1reward_trainer.method.verdict import format_ok, parse_verdict

PIECES = ("<think>", "</think>", "<answer>", "</answer>", "1", "2", "x", " ", "\n")
RESPONSES = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("<think>a</think><answer>1</answer>", "well_formed"),
        ("<think>a</think><answer>1</answer></answer>", "well_formed"),
        ("<answer>1</answer>", "no_think_tag"),
        ("<THINK>a</THINK><answer>1</answer>", "no_think_tag"),
        ("<think>a<think>b</think><answer>1</answer>", "several_think_tags"),
        ("<think>a</think>1", "no_answer_tag"),
        ("<think>a</think><answer>2</answer><answer>1</answer>", "several_answer_tags"),
        ("well: <think>a</think><answer>1</answer>", "text_before_think"),
        ("<think>a<answer>1</answer>", "think_not_closed"),
        ("<think>a<answer>1</answer></think>", "think_not_closed"),
        ("<think>a</think>\n<answer>1</answer>", "text_between_blocks"),
        ("<think>a</think><answer>1", "answer_not_closed"),
        ("<think>a</think><answer>1</answer> so there", "text_after_answer"),
    ],
)
def test_the_format_names_the_first_rule_that_is_broken(response, reason):
    assert format_reason(response) == reason


@given(RESPONSES)
@example("<think></think><answer></answer>")
def test_the_form_is_right_exactly_when_its_reason_says_so(response):
    assert (format_reason(response) is FormatReason.WELL_FORMED) == format_ok(response)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("<answer>1</answer>", "gold"),
        ("<answer>2</answer>", "not_gold"),
        ("Response 1", "no_answer_tag"),
        ("<answer>2</answer><answer>1</answer>", "several_answer_tags"),
        ("</answer><answer>1", "answer_not_closed"),
        ("<answer> 1</answer>", "answer_not_a_digit"),
        ("<answer>1 or 2</answer>", "answer_not_a_digit"),
    ],
)
def test_the_result_says_why_there_is_no_verdict_or_not_the_gold_one(response, reason):
    assert result_reason(response, parse_verdict(response), 1) == reason


@given(RESPONSES)
def test_a_result_is_gold_exactly_when_the_verdict_is(response):
    verdict = parse_verdict(response)
    reason = result_reason(response, verdict, 1)
    assert (reason is ResultReason.GOLD) == (verdict == 1)
    assert (reason is ResultReason.NOT_GOLD) == (verdict == 2)


def test_the_released_parser_gives_no_reason_of_the_strict_grammar():
    assert result_reason("1/2", None, 1, released=True) is ResultReason.RELEASED_RULE


def test_every_reason_has_words_of_its_own_and_every_one_of_consistency_an_outcome():
    for kind in (ResultReason, FormatReason, ConsistencyReason):
        assert len({words(reason) for reason in kind}) == len(kind)
    assert {reason.value: outcome_of(reason).value for reason in ConsistencyReason} == {
        "judge_agrees": "match",
        "judge_disagrees": "mismatch",
        "empty_chain": "mismatch",
        "judge_refuses": "refused",
        "judge_unreadable": "unknown",
        "judge_out": "unavailable",
        "no_judge": "skipped",
        "no_weight": "skipped",
        "result_is_0": "skipped",
    }
