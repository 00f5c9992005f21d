# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pytest

from r1reward_api.resource.job import DataSpec
from r1reward_trainer.data.partition import Partition, partition
from r1reward_trainer.data.rows import Row, SetRow, open_rows, write_rows
from r1reward_trainer.outcome import ConfigurationError
from tests.unit.data.images import encoded, photo, png

ROWS = [Row(f"r{n}", "q", f"good {n}", f"bad {n}", 1, (png(n // 2),), "") for n in range(40)]
"""20 images, two rows each; the better answer first."""


def part(folder: Path, rows: list[Row], sets: dict[str, Path], **data: Any) -> Partition:
    write_rows(folder / "spool", rows, Row)
    spec = DataSpec.model_validate({"preferences": [{"uri": "s3://rows/x.parquet"}], **data})
    done, _ = partition(
        folder / "spool", {0, 1, 6, 7}, sets, spec, folder / "train", folder / "heldout",
        folder / "contamination.jsonl", lambda _: None,
    )  # fmt: skip
    return done


def better(row: Row) -> str:
    return (row.answer1, row.answer2)[row.gold - 1]


def test_rows_go_to_either_side_with_gold_balanced(tmp_path: Path) -> None:
    done = part(tmp_path, ROWS, {})
    train, heldout = list(open_rows(tmp_path / "train")), list(open_rows(tmp_path / "heldout"))
    assert (done.train, done.heldout) == (36, 4)
    assert [row.id for row in heldout] == ["r0", "r1", "r6", "r7"]
    assert [row.gold for row in train].count(1) == 18
    assert [row.gold for row in heldout].count(1) == 2
    assert all(better(row).startswith("good") for row in train + heldout)
    assert done.contamination["rows"] == 0


def test_both_orders_double_training_rows_alone(tmp_path: Path) -> None:
    done = part(tmp_path, ROWS, {}, bothOrders=True)
    train, heldout = list(open_rows(tmp_path / "train")), list(open_rows(tmp_path / "heldout"))
    assert (done.train, done.heldout, len(heldout)) == (72, 4, 4)
    for first, second in zip(train[::2], train[1::2], strict=True):
        assert (second.answer1, second.answer2) == (first.answer2, first.answer1)
        assert second.gold == 3 - first.gold
        assert second.id == f"{first.id}~swapped"
        assert better(first) == better(second)
        assert second.images == first.images
    firsts = [row.gold for row in train[::2]]
    assert firsts.count(1) == 18, "which order comes first is balanced too"


@pytest.fixture
def bench(tmp_path: Path) -> dict[str, Path]:
    """A set with a copy of the image of rows 10 and 11."""
    copy = encoded(photo(5).resize((60, 40)), "JPEG", quality=70)
    rows = [SetRow("x#0", "q", "a", "b", 1, (copy,), "", "x", ""),
            SetRow("y#1", "q", "a", "b", 2, (png(99),), "", "y", "")]  # fmt: skip
    write_rows(tmp_path / "set-bench", rows, SetRow)
    return {"bench": tmp_path / "set-bench"}


@pytest.mark.parametrize(("mode", "rows"), [("Report", 36), ("Remove", 34)])
def test_rows_that_share_an_image_with_a_set_are_reported_and_removed_when_asked(
    tmp_path: Path, bench: dict[str, Path], mode: str, rows: int
) -> None:
    done = part(tmp_path, ROWS, bench, contamination=mode)
    kept = {row.id for row in open_rows(tmp_path / "train")}
    assert (done.train, len(kept), done.contamination["rows"]) == (rows, rows, 2)
    assert kept.isdisjoint({"r10", "r11"}) == (mode == "Remove")
    lines = (tmp_path / "contamination.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(f["row"], f["set"], f["item"], f["shared"]) for f in found] == [
        ("r10", "bench", "x", "image"),
        ("r11", "bench", "x", "image"),
    ]


def test_a_near_copy_of_a_held_out_image_is_found_where_its_bytes_differ(tmp_path: Path) -> None:
    rows = list(ROWS)
    rows[20] = Row("copy", "q", "g", "b", 1, (encoded(photo(0), "JPEG", quality=80),), "")
    done = part(tmp_path, rows, {}, contamination="Remove")
    assert done.contamination["sets"]["heldout"]["examples"][0]["row"] == "copy"
    assert "copy" not in {row.id for row in open_rows(tmp_path / "train")}


def test_data_of_which_nothing_would_be_left_is_refused(tmp_path: Path) -> None:
    rows = [Row(f"r{n}", "q", "a", "b", 1, (png(0),), "") for n in range(8)]
    with pytest.raises(ConfigurationError, match="leaves no training row"):
        part(tmp_path, rows, {}, contamination="Remove")
