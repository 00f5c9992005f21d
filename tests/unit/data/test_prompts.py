# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import NFC

from r1reward_api.resource.job import DataSpec, PreferenceSource
from r1reward_trainer.data.prompts import PromptCheck
from r1reward_trainer.data.schema import BadReason, BadRecord
from r1reward_trainer.render import PromptTooLong, Renderer
from tests.digits.model import build_processor
from tests.digits.rows import TEMPLATE, preference_rows

ROW = preference_rows()[0]
DATA = DataSpec(
    preferences=[PreferenceSource(uri="s3://data/x.parquet")],
    prompt_template=TEMPLATE,
    min_pixels=784,
    max_pixels=3136,
    max_prompt_tokens=100,
)


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> tuple[PromptCheck, Renderer]:
    folder = tmp_path_factory.mktemp("processor")
    build_processor().save_pretrained(folder)
    check = PromptCheck(folder, DATA)
    check(ROW)  # the first row is always rendered; from then on a bound spares most of them
    return check, Renderer.from_folder(folder, DATA)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90))
def test_the_quick_check_never_disagrees_with_the_renderer(
    checks: tuple[PromptCheck, Renderer], question: str
) -> None:
    row = replace(ROW, question=question)
    check, renderer = checks
    try:
        renderer.prompt(row.question, row.answer1, row.answer2, row.images)
    except PromptTooLong:
        with pytest.raises(BadRecord) as error:
            check(row)
        assert error.value.reason is BadReason.PROMPT_TOO_LONG
    else:
        check(row)


def test_a_text_that_grows_as_a_tokenizer_composes_it_is_not_let_through(tmp_path: Path) -> None:
    processor = build_processor()
    processor.tokenizer.backend_tokenizer.normalizer = NFC()  # as Qwen's
    processor.save_pretrained(tmp_path)
    check = PromptCheck(tmp_path, DATA.model_copy(update={"max_prompt_tokens": 400}))
    check(ROW)
    check(replace(ROW, question="\u0958" * 60))
    with pytest.raises(BadRecord):  # three bytes each as written, six as they are read
        check(replace(ROW, question="\u0958" * 64))
