# SPDX-License-Identifier: Apache-2.0
"""Images that lie beside the rows are read while earlier rows are dealt with."""

import json
import threading
from pathlib import Path

import pytest

from r1reward_trainer.data.formats.registry import importer_of
from r1reward_trainer.data.intake import Intake, take_in
from r1reward_trainer.data.objects import Folder
from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.schema import parse_row
from r1reward_trainer.data.sources import Source, find_files
from r1reward_trainer.outcome import ConfigurationError
from tests.unit.data.images import png

AT_ONCE = 4
ROWS = 24


class FarAway(Folder):
    """A store that answers only when several ask at the same time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.together = threading.Barrier(AT_ONCE)
        self.read = 0

    def get(self, key: str, /) -> bytes:
        self.together.wait(timeout=20)
        self.read += 1
        return super().get(key)


def write_images(folder: Path, images: int) -> None:
    for number in range(images):
        (folder / f"{number}.png").write_bytes(png(number))


def lines(images: int, before: str = "") -> list[str]:
    """Two rows about each image."""
    return [
        json.dumps(
            {"id": f"{n}-{k}", "question": "q", "answer1": "a", "answer2": "b", "gold": 1}
            | {"images": [f"{before}{n}.png"]}
        )
        for n in range(images)
        for k in range(2)
    ]


def read(
    store: Folder, name: str, rows: list[Row], scratch: Path, max_rows: int | None = None
) -> Intake:
    source = Source(find_files("rows", name, lambda _: store), importer_of("Plain"))
    return take_in(
        [source],
        lambda record, media: parse_row(record, 1, media),
        lambda row: None,
        rows.append,
        scratch / "bad",
        scratch,
        max_rows,
        lambda number: None,
    )


@pytest.mark.parametrize("before", ["", "/home/me/data/"])
def test_images_are_read_at_the_same_time_once_and_come_in_order(
    tmp_path: Path, before: str
) -> None:
    write_images(tmp_path, ROWS)
    (tmp_path / "x.jsonl").write_text("\n".join(lines(ROWS, before)))
    store = FarAway(tmp_path)
    rows: list[Row] = []
    intake = read(store, "x.jsonl", rows, tmp_path)
    assert intake.quality.bad_rows == 0
    assert [row.id for row in rows] == [f"{n}-{k}" for n in range(ROWS) for k in range(2)]
    assert all(row.images == (png(int(row.id.partition("-")[0])),) for row in rows)
    assert store.read == ROWS


def test_no_more_is_read_ahead_than_a_few_images(tmp_path: Path) -> None:
    write_images(tmp_path, ROWS)
    (tmp_path / "x.jsonl").write_text("\n".join(lines(ROWS)))
    store = FarAway(tmp_path)
    rows: list[Row] = []
    read(store, "x.jsonl", rows, tmp_path, max_rows=1)
    assert len(rows) == 1
    assert store.read <= 8


def test_a_damaged_line_hides_no_row_before_it(tmp_path: Path) -> None:
    write_images(tmp_path, AT_ONCE)
    (tmp_path / "x.json").write_text("[" + ",".join(lines(AT_ONCE)) + ", nope]")
    rows: list[Row] = []
    with pytest.raises(ConfigurationError, match="cannot be read as a JSON list"):
        read(Folder(tmp_path), "x.json", rows, tmp_path)
    assert len(rows) == 2 * AT_ONCE
