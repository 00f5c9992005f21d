# SPDX-License-Identifier: Apache-2.0
from r1reward_trainer.data.quality import Quality
from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.schema import BadReason


def test_the_report_counts_sources_labels_duplicates_and_bad_rows() -> None:
    quality = Quality()
    first = Row("a", "q", "one", "two", 1, (b"i",), "pets")
    quality.note(first, (b"i",))
    quality.note(Row("a", "other", "one", "two", 1, (b"i",), "pets"), (b"i",))
    quality.note(Row("b", "q", "two", "one", 1, (b"i",), "cars"), (b"i",))  # the first, turned
    quality.note_bad(BadReason.EMPTY_TEXT)
    quality.note_bad(BadReason.EMPTY_TEXT)
    quality.note_left_out("tie")
    assert quality.report(train=2, heldout=1, images=1) == {
        "rows": 3,
        "train": 2,
        "heldout": 1,
        "images": 1,
        "badRows": 2,
        "badReasons": {"empty-text": 2},
        "leftOut": {"tie": 1},
        "sources": {"pets": 2, "cars": 1},
        "goldAsRead": {"1": 3, "2": 0},
        "allOneLabel": True,
        "repeatedIds": 1,
        "repeatedIdExamples": ["a"],
        "repeatedContents": 1,
        "warnings": [
            "gold is 1 in every row as read; the order of the answers was balanced, but check "
            "that gold was not filled in by default",
            "1 rows repeat the id of another row",
            "1 rows repeat question, answers and images",
        ],
    }


def test_clean_data_gives_no_warning() -> None:
    quality = Quality()
    quality.note(Row("a", "q", "one", "two", 1, (b"i",), ""), (b"i",))
    quality.note(Row("b", "q", "one", "three", 2, (b"i",), ""), (b"i",))
    assert quality.report(1, 1, 1)["warnings"] == []
