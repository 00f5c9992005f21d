# SPDX-License-Identifier: Apache-2.0
"""No text takes its readers more time than its length: with the square of it, none of these would
end within the limit of a test."""

import pytest

from r1reward_trainer.data.formats.pieces import without_placeholder
from r1reward_trainer.evaluation.protocols import released_choice
from r1reward_trainer.evaluation.reflection import reflections
from r1reward_trainer.method.judge_prompt import (
    judge_prompt,
    parse_judgement,
    released_prompt,
    think_tail,
)
from r1reward_trainer.method.reasons import format_reason, result_reason
from r1reward_trainer.method.verdict import format_ok, parse_verdict, released_verdict

LENGTH = 800_000
REPEATED = (
    "<answer>", "</answer>", "<think>", "</think>", "<answer>1", "<image>", " ", "\u00a0", "\n",
    "1", "-1", "1/", "1.", "#", "# *", "[", "re", "let me ", "\u0301\u0316", "\u1100\u1161",
)  # fmt: skip
"""The last but one: marks on one letter, which NFC puts into another order."""
READERS = {
    "verdict": parse_verdict,
    "form": format_ok,
    "released verdict": released_verdict,
    "released prompt": released_prompt,
    "released benchmarks": lambda text: released_choice(text, None),
    "released MM-RLHF": lambda text: released_choice(text, "MM-RLHF-RewardBench"),
    "reason of the form": format_reason,
    "reason of the result": lambda text: result_reason(text, None, 1),
    "question to the judge": lambda text: judge_prompt(think_tail(f"<think>a{text}</think>"), 1),
    "answer of the judge": parse_judgement,
    "second thoughts": reflections,
    "question of a data set": without_placeholder,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_text_of_one_repeated_piece_is_read_in_time(reader) -> None:
    for piece in REPEATED:
        READERS[reader](f"x{piece * (LENGTH // len(piece))}x")
