# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from r1reward_trainer.data import rows
from r1reward_trainer.data.rows import (
    AnnotatedRow,
    Row,
    Rows,
    RowWriter,
    open_annotated,
    open_rows,
    write_rows,
)
from r1reward_trainer.outcome import ConfigurationError


def row(number: int) -> Row:
    return Row(f"r{number}", "q", "one", "two", 1 + number % 2, (bytes([number]) * 1000, b"x"), "s")


def annotated(number: int) -> AnnotatedRow:
    values = {name: getattr(row(number), name) for name in Row.__slots__}
    return AnnotatedRow(
        **values, response="<think></think>", attempts=2, teacher="t", temperature=0.5
    )


def test_rows_come_back_whole_and_in_order_from_several_shards(tmp_path: Path) -> None:
    written = [row(n) for n in range(100)]
    assert write_rows(tmp_path, written, Row, shard_bytes=20_000) == 100
    read = open_rows(tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) > 3
    assert list(read) == written
    assert [read[i] for i in (99, 0, 50, -1, 17)] == [row(n) for n in (99, 0, 50, 99, 17)]
    assert read[3:6] == written[3:6]
    with pytest.raises(IndexError):
        read[100]


def test_annotated_rows_are_preference_rows_too(tmp_path: Path) -> None:
    write_rows(tmp_path, [annotated(1), annotated(2)], AnnotatedRow)
    assert list(open_annotated(tmp_path)) == [annotated(1), annotated(2)]
    assert list(open_rows(tmp_path)) == [row(1), row(2)]


def test_the_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    write_rows(tmp_path, [annotated(1)], AnnotatedRow)
    schema = pq.read_schema(tmp_path / "part-00000.parquet")
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "id": "string",
        "question": "string",
        "answer1": "string",
        "answer2": "string",
        "gold": "int8",
        "images": "list<element: binary>",
        "source": "string",
        "response": "string",
        "attempts": "int8",
        "teacher": "string",
        "temperature": "float",
    }


def test_no_rows_are_an_empty_table(tmp_path: Path) -> None:
    assert write_rows(tmp_path, [], Row) == 0
    assert list(open_rows(tmp_path)) == []


def test_a_folder_without_what_is_needed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no Parquet"):
        open_rows(tmp_path)
    write_rows(tmp_path, [row(1)], Row)
    with pytest.raises(ConfigurationError, match="no column attempts, response"):
        Rows(tmp_path, AnnotatedRow)


def test_shards_and_groups_are_closed_by_their_rows_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "SHARD_ROWS", 48)
    monkeypatch.setattr(rows, "GROUP_BYTES", 5_000)
    with RowWriter(tmp_path, Row, rows_per_group=32) as writer:
        for number in range(100):
            writer.write(row(number))
    shards = [pq.ParquetFile(path) for path in sorted(tmp_path.glob("*.parquet"))]
    assert [shard.metadata.num_rows for shard in shards] == [50, 50]
    assert shards[0].metadata.row_group(0).num_rows == 5
    assert list(open_rows(tmp_path)) == [row(n) for n in range(100)]
