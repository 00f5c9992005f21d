# SPDX-License-Identifier: Apache-2.0
"""Rows that a stage cannot use although prepare let them pass: the row, the numbers, the remedy."""

from dataclasses import replace

import pytest

from r1reward_api.reasons import Reason
from r1reward_trainer.data.rows import AnnotatedRow
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.render import Renderer
from r1reward_trainer.stages import evaluate, sft
from r1reward_trainer.training import render_row
from tests.unit.trainer.conftest import png

ROW = AnnotatedRow(
    id="row-7",
    question="which?",
    answer1="left",
    answer2="right",
    gold=1,
    images=(png(0),),
    source="",
    response="<think>a</think><answer>1</answer>",
    attempts=1,
    teacher="t",
    temperature=0.0,
)


def test_a_chain_that_does_not_fit_behind_its_prompt_is_named_with_both_lengths(renderer: Renderer):
    example = sft.chain_example(renderer, ROW, 256)
    limit = len(example) - 1
    with pytest.raises(ConfigurationError) as error:
        sft.chain_example(renderer, ROW, limit)
    assert error.value.reason is Reason.INVALID_DATA
    lengths = f"{len(example.prompt_ids)} + {len(example.response_ids)} tokens"
    assert error.value.message.startswith(f"row row-7: prompt and chain have {lengths}")
    assert f"serving.maxModelLength is {limit}; raise it, or lower" in error.value.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": "?" * 400}, "data.maxPromptTokens allows 256"),
        ({"images": (b"GIF89a",)}, "are no PNG, JPEG or WebP file"),
    ],
)
def test_a_row_that_cannot_be_rendered_is_named(
    renderer: Renderer, changes: dict[str, object], words: str
):
    with pytest.raises(ConfigurationError) as error:
        render_row(renderer, replace(ROW, **changes))  # pyright: ignore[reportArgumentType]
    assert error.value.reason is Reason.INVALID_DATA
    assert error.value.message.startswith("row row-7: ")
    assert words in error.value.message


def test_an_evaluation_without_a_held_out_row_names_the_fraction():
    with pytest.raises(ConfigurationError, match=r"raise data\.holdout\.fraction") as error:
        evaluate.choose_rows(0, None, 0)
    assert error.value.reason is Reason.INVALID_DATA
