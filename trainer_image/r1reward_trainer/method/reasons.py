# SPDX-License-Identifier: Apache-2.0
"""Why each term of a reward is what it is: a code for programs and words for people.

The rules themselves are `verdict.py` and `reward.py`. What is here names the first rule
that a response breaks, and never decides whether it breaks one.
"""

from enum import StrEnum

from r1reward_trainer.method.reward import JudgeOutcome
from r1reward_trainer.method.verdict import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    THINK_CLOSE,
    THINK_OPEN,
    format_ok,
)


class ResultReason(StrEnum):
    """Why the result is 1 (`gold`) or 0."""

    GOLD = "gold"
    NOT_GOLD = "not_gold"
    NO_ANSWER_TAG = "no_answer_tag"
    SEVERAL_ANSWER_TAGS = "several_answer_tags"
    ANSWER_NOT_CLOSED = "answer_not_closed"
    ANSWER_NOT_A_DIGIT = "answer_not_a_digit"
    RELEASED_RULE = "released_rule"


class FormatReason(StrEnum):
    """Why the format is 1 (`well_formed`) or 0."""

    WELL_FORMED = "well_formed"
    NO_THINK_TAG = "no_think_tag"
    SEVERAL_THINK_TAGS = "several_think_tags"
    NO_ANSWER_TAG = "no_answer_tag"
    SEVERAL_ANSWER_TAGS = "several_answer_tags"
    TEXT_BEFORE_THINK = "text_before_think"
    THINK_NOT_CLOSED = "think_not_closed"
    TEXT_BETWEEN_BLOCKS = "text_between_blocks"
    ANSWER_NOT_CLOSED = "answer_not_closed"
    TEXT_AFTER_ANSWER = "text_after_answer"


class ConsistencyReason(StrEnum):
    """Why the consistency is 1 (`judge_agrees`), -1 or 0."""

    JUDGE_AGREES = "judge_agrees"
    JUDGE_DISAGREES = "judge_disagrees"
    EMPTY_CHAIN = "empty_chain"
    JUDGE_REFUSES = "judge_refuses"
    JUDGE_UNREADABLE = "judge_unreadable"
    JUDGE_OUT = "judge_out"
    NO_JUDGE = "no_judge"
    NO_WEIGHT = "no_weight"
    RESULT_IS_0 = "result_is_0"


Reason = ResultReason | FormatReason | ConsistencyReason

_WORDS: dict[Reason, str] = {
    ResultReason.GOLD: "the verdict is the gold one",
    ResultReason.NOT_GOLD: "the verdict is not the gold one",
    ResultReason.NO_ANSWER_TAG: "no <answer>",
    ResultReason.SEVERAL_ANSWER_TAGS: "more than one <answer>",
    ResultReason.ANSWER_NOT_CLOSED: "no </answer> after <answer>",
    ResultReason.ANSWER_NOT_A_DIGIT: "the answer is not exactly 1 or 2",
    ResultReason.RELEASED_RULE: "the released code's parser finds neither 1 nor 2",
    FormatReason.WELL_FORMED: "<think>…</think><answer>…</answer> and nothing else",
    FormatReason.NO_THINK_TAG: "no <think>",
    FormatReason.SEVERAL_THINK_TAGS: "more than one <think>",
    FormatReason.NO_ANSWER_TAG: "no <answer>",
    FormatReason.SEVERAL_ANSWER_TAGS: "more than one <answer>",
    FormatReason.TEXT_BEFORE_THINK: "something stands before <think>",
    FormatReason.THINK_NOT_CLOSED: "no </think> between <think> and <answer>",
    FormatReason.TEXT_BETWEEN_BLOCKS: "something stands between </think> and <answer>",
    FormatReason.ANSWER_NOT_CLOSED: "no </answer> after <answer>",
    FormatReason.TEXT_AFTER_ANSWER: "something stands after the last </answer>",
    ConsistencyReason.JUDGE_AGREES: "the judge says that the chain concludes the verdict",
    ConsistencyReason.JUDGE_DISAGREES: "the judge says that the chain does not conclude it",
    ConsistencyReason.EMPTY_CHAIN: "the chain has no text, so it concludes nothing",
    ConsistencyReason.JUDGE_REFUSES: "the judge refuses the chain's text and answers a plain "
    "question: as one that does not conclude it",
    ConsistencyReason.JUDGE_UNREADABLE: "the judge's answer is neither 1 nor 0: neutral",
    ConsistencyReason.JUDGE_OUT: "the judge did not answer in time: neutral",
    ConsistencyReason.NO_JUDGE: "there is no judge: neutral",
    ConsistencyReason.NO_WEIGHT: "its weight is 0: the judge was not asked",
    ConsistencyReason.RESULT_IS_0: "the result is 0, which it would multiply: the judge was not "
    "asked",
}

SAID = {
    JudgeOutcome.MATCH: ConsistencyReason.JUDGE_AGREES,
    JudgeOutcome.MISMATCH: ConsistencyReason.JUDGE_DISAGREES,
    JudgeOutcome.REFUSED: ConsistencyReason.JUDGE_REFUSES,
    JudgeOutcome.UNKNOWN: ConsistencyReason.JUDGE_UNREADABLE,
    JudgeOutcome.UNAVAILABLE: ConsistencyReason.JUDGE_OUT,
}
"""What the word of a judge that was asked means."""


def outcome_of(reason: ConsistencyReason) -> JudgeOutcome:
    """What is known of the chain's agreement with its verdict, for this reason."""
    if reason is ConsistencyReason.EMPTY_CHAIN:
        return JudgeOutcome.MISMATCH
    return next((o for o, said in SAID.items() if said is reason), JudgeOutcome.SKIPPED)


def words(reason: Reason) -> str:
    """The reason in English."""
    return _WORDS[reason]


def result_reason(
    response: str, verdict: int | None, gold: int, *, released: bool = False
) -> ResultReason:
    """Why the result is what it is.

    Args:
        response: hostile.
        verdict: what was read from it.
        gold: 1 or 2.
        released: whether the released code's parser read it.
    """
    if verdict is not None:
        return ResultReason.GOLD if verdict == gold else ResultReason.NOT_GOLD
    if released:
        return ResultReason.RELEASED_RULE
    match response.count(ANSWER_OPEN):
        case 0:
            return ResultReason.NO_ANSWER_TAG
        case 1:
            closed = ANSWER_CLOSE in response.partition(ANSWER_OPEN)[2]
            return ResultReason.ANSWER_NOT_A_DIGIT if closed else ResultReason.ANSWER_NOT_CLOSED
        case _:
            return ResultReason.SEVERAL_ANSWER_TAGS


def format_reason(response: str) -> FormatReason:
    """Why the format is what it is: the first rule that is broken, tags before places."""
    text = response.strip()
    thinks, answers = text.count(THINK_OPEN), text.count(ANSWER_OPEN)
    before, _, after = text.partition(ANSWER_OPEN)
    broken = (
        (thinks == 0, FormatReason.NO_THINK_TAG),
        (thinks > 1, FormatReason.SEVERAL_THINK_TAGS),
        (answers == 0, FormatReason.NO_ANSWER_TAG),
        (answers > 1, FormatReason.SEVERAL_ANSWER_TAGS),
        (not text.startswith(THINK_OPEN), FormatReason.TEXT_BEFORE_THINK),
        (THINK_CLOSE not in before, FormatReason.THINK_NOT_CLOSED),
        (not before.endswith(THINK_CLOSE), FormatReason.TEXT_BETWEEN_BLOCKS),
        (ANSWER_CLOSE not in after, FormatReason.ANSWER_NOT_CLOSED),
        (not after.endswith(ANSWER_CLOSE), FormatReason.TEXT_AFTER_ANSWER),
    )
    if format_ok(response):
        return FormatReason.WELL_FORMED
    return next(reason for is_broken, reason in broken if is_broken)
