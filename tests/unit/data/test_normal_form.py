# SPDX-License-Identifier: Apache-2.0
"""Normal forms of ordinary and of hostile text."""

import unicodedata
from typing import Literal

import pytest

from r1reward_trainer.data.normal_form import MOST_MARKS, is_crowded, normalized
from r1reward_trainer.data.shingles import shingles

ORDINARY = (
    "plain", "Cafe\u0301 noir", "\ufb01ne \uff21\uff22", "\uac00\u1100\u1161\u11a8", "\u304b\uff9e",
    "\u0f71\u0f72\u0f74", "x" + "\u0316\u0301" * (MOST_MARKS // 2), "\u1f82\u0345", "",
)  # fmt: skip
MARKS = ("\u0301\u0316", "\uff9e\u0301", "\u0f73\u0f71", "\u0344\u0316")


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
@pytest.mark.parametrize("text", ORDINARY)
def test_of_ordinary_text_it_is_unicodes_own(form: Literal["NFC", "NFKC"], text: str) -> None:
    assert normalized(form, text) == unicodedata.normalize(form, text)
    assert not is_crowded(text)


@pytest.mark.parametrize("marks", MARKS)
def test_marks_that_no_language_has_are_left_out(marks: str) -> None:
    few = normalized("NFKC", f"a{marks * 20} b")
    assert few == unicodedata.normalize("NFKC", f"a{(marks * 20)[:MOST_MARKS]} b")
    assert is_crowded(marks * 20)


@pytest.mark.parametrize("marks", MARKS)
def test_a_text_of_marks_is_read_in_time(marks: str) -> None:
    """In the square of its length it would not end within the limit of a test."""
    assert len(shingles([f"a{marks * 400_000} and {' word' * 10}"])) > 0
