# SPDX-License-Identifier: Apache-2.0
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from r1reward_trainer.data.distribution import Distribution
from r1reward_trainer.data.quality import Quality
from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.schema import BadReason


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGE = png(8, 4)


def noted(*rows: Row) -> Quality:
    quality = Quality(lambda text: len(text.split()))
    for row in rows:
        quality.note(row, row.images)
    return quality


def test_the_report_counts_sources_labels_lengths_sizes_and_bad_rows() -> None:
    quality = noted(
        Row("a", "what is it", "one", "a two", 1, (IMAGE,), "pets"),
        Row("a", "other", "one two three four", "two", 1, (png(16, 2), IMAGE), "pets"),
        Row("b", "who", "two", "one", 1, (IMAGE,), "cars"),
    )
    quality.note_bad(BadReason.EMPTY_TEXT)
    quality.note_bad(BadReason.EMPTY_TEXT)
    quality.note_left_out("tie")
    report = quality.report(train=2, heldout=1, images=1)
    assert report["characters"]["question"] == {
        "min": 3, "p50": 5, "p95": 10, "p99": 10, "max": 10, "mean": 6.0,
    }  # fmt: skip
    assert report["tokens"]["answer"]["max"] == 4
    assert report["imageSizes"]["width"]["max"] == 16
    assert report["imageSizes"]["pixels"]["p50"] == 32
    assert report["imageSizes"]["perRow"]["max"] == 2
    counted = ("rows", "train", "heldout", "images", "badRows", "badReasons", "leftOut", "sources")
    assert {name: report[name] for name in counted} == {
        "rows": 3,
        "train": 2,
        "heldout": 1,
        "images": 1,
        "badRows": 2,
        "badReasons": {"empty-text": 2},
        "leftOut": {"tie": 1},
        "sources": {"pets": 2, "cars": 1},
    }
    assert report["goldAsRead"] == {"1": 3, "2": 0}
    assert report["longerIsBetter"] == 0.333
    assert (report["repeatedIds"], report["repeatedIdExamples"]) == (1, ["a"])
    assert report["warnings"] == [
        "gold is 1 in every row as read, as it is in files of chosen and rejected answers; the "
        "order of the answers is balanced. If the files have a gold of their own, check it",
        "1 rows repeat the id of another row",
    ]


def test_rows_that_repeat_another_are_told_apart_by_what_they_say() -> None:
    def row(name: str, answer1: str, answer2: str, gold: int, question: str = "q") -> Row:
        return Row(name, question, answer1, answer2, gold, (IMAGE,), "")

    quality = noted(
        row("first", "one", "two", 1),
        row("again", "one", "two", 1),
        row("turned", "two", "one", 2),
        row("turned again", "two", "one", 2),
        row("contrary", "one", "two", 2),
        row("contrary turned", "two", "one", 1),
        row("other question", "one", "two", 1, "r"),
        row("other gold", "three", "two", 2),
    )
    report = quality.figures()
    assert report["duplicates"] == {
        "exact": 2,
        "swapped": 1,
        "conflicting": 2,
        "examples": [
            {"row": "again", "of": "first", "kind": "exact"},
            {"row": "turned", "of": "first", "kind": "swapped"},
            {"row": "turned again", "of": "first", "kind": "exact"},
            {"row": "contrary", "of": "first", "kind": "conflicting"},
            {"row": "contrary turned", "of": "first", "kind": "conflicting"},
        ],
    }
    assert report["warnings"] == [
        "3 rows repeat question, answers and images of another row",
        "2 rows say the contrary of another row with the same question, answers and images",
    ]


def test_answers_of_which_none_can_be_better_are_counted() -> None:
    report = noted(
        Row("a", "q", "one", "one", 1, (IMAGE,), ""), Row("b", "q", "one", "two", 2, (IMAGE,), "")
    ).figures()
    assert report["sameAnswers"] == 1
    assert report["warnings"] == [
        "1 rows have the same text as both answers, of which none is better; check the columns, or "
        "leave them out"
    ]


def test_clean_data_gives_no_warning() -> None:
    quality = noted(
        Row("a", "q", "one", "two", 1, (IMAGE,), ""), Row("b", "q", "one", "three", 2, (IMAGE,), "")
    )
    assert quality.report(1, 1, 1)["warnings"] == []
    assert Quality().figures()["warnings"] == []


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_quantiles_are_right_to_three_digits_in_bounded_memory(values: list[int]) -> None:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    found = distribution.figures()
    exact = sorted(values)[max(0, math.ceil(0.95 * len(values)) - 1)]
    assert found["p95"] == pytest.approx(exact, rel=0.006)
    assert (found["min"], found["max"]) == (min(values), max(values))
