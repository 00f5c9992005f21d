# SPDX-License-Identifier: Apache-2.0
"""Rows of the one preference schema, in Parquet shards.

Shards have small row groups, so that a training loop can read rows in any order
without holding the images of the whole data set in memory.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import pyarrow as pa
import pyarrow.parquet as pq

from r1reward_api.reasons import Reason
from r1reward_api.wire.rows import ANNOTATION_COLUMNS, PREFERENCE_COLUMNS, SET_COLUMNS
from r1reward_trainer.outcome import ConfigurationError

ROWS_PER_GROUP = 16
SPOOL_ROWS_PER_GROUP = 256
"""Of rows that are read one after another: a group costs its reader and writer some kilobytes."""
GROUP_BYTES = 8 * 2**20
SHARD_BYTES = 256 * 2**20
SHARD_ROWS = 2**16
_CACHED_GROUPS = 16

_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int8": pa.int8(),
    "float": pa.float32(),
    "list<binary>": pa.list_(pa.binary()),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One preference.

    Attributes:
        id: of the row, as its source names it.
        question: what was asked about the images.
        answer1, answer2: the two answers.
        gold: 1 or 2, the better answer.
        images: encoded PNG, JPEG or WebP files.
        source: name of the data set.
    """

    id: str
    question: str
    answer1: str
    answer2: str
    gold: int
    images: tuple[bytes, ...]
    source: str


@dataclass(frozen=True, slots=True)
class AnnotatedRow(Row):
    """A preference with a chain of thought.

    Attributes:
        response: the whole `<think>…</think><answer>k</answer>`, empty when the teacher was
            never right.
        attempts: the attempt that was right, 0 for never.
        teacher: model that wrote the response.
        temperature: at which it was sampled.
    """

    response: str
    attempts: int
    teacher: str
    temperature: float


@dataclass(frozen=True, slots=True)
class SetRow(Row):
    """A preference of an evaluation set.

    Attributes:
        item: the benchmark's own id, which need not be unique; `id` is.
        category: the benchmark's category, or the path of the image or video.
    """

    item: str
    category: str


RowT = TypeVar("RowT", bound=Row)


def arrow_schema(kind: type[Row]) -> pa.Schema:
    """The columns of a kind of row."""
    columns = dict(PREFERENCE_COLUMNS)
    if issubclass(kind, AnnotatedRow):
        columns |= ANNOTATION_COLUMNS
    if issubclass(kind, SetRow):
        columns |= SET_COLUMNS
    return pa.schema([(name, _ARROW_TYPES[of]) for name, of in columns.items()])


class RowWriter(Generic[RowT]):
    """Writes rows into `part-00000.parquet`, `part-00001.parquet`, …; a context manager.

    Args:
        folder: made when missing.
        kind: the kind of row; decides the columns.
        shard_bytes: a shard is closed when its rows have this many bytes, or are SHARD_ROWS.
        rows_per_group: most rows that are read together; GROUP_BYTES limit them as well.
    """

    def __init__(
        self,
        folder: Path,
        kind: type[RowT],
        shard_bytes: int = SHARD_BYTES,
        rows_per_group: int = ROWS_PER_GROUP,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self._folder = folder
        self._schema = arrow_schema(kind)
        self._shard_bytes = shard_bytes
        self._rows_per_group = rows_per_group
        self._shards = 0
        self._pending: list[RowT] = []
        self._pending_bytes = 0
        self._file: pq.ParquetWriter | None = None
        self._file_bytes = 0
        self._file_rows = 0

    def __enter__(self) -> "RowWriter[RowT]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, row: RowT) -> None:
        """Appends a row."""
        self._pending.append(row)
        self._pending_bytes += sum(map(len, row.images))
        self.rows += 1
        if len(self._pending) == self._rows_per_group or self._pending_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Finishes the last shard; without any row there is one empty shard."""
        if self._pending or self._shards == 0:
            self._flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _flush(self) -> None:
        if self._file is None:
            path = self._folder / f"part-{self._shards:05d}.parquet"
            # Images are compressed already; texts are small beside them.
            self._file = pq.ParquetWriter(path, self._schema, compression="snappy")
            self._file_bytes = self._file_rows = 0
            self._shards += 1
        table = pa.Table.from_pylist([asdict(row) for row in self._pending], schema=self._schema)
        self._file.write_table(table)
        self._file_bytes += table.nbytes
        self._file_rows += len(self._pending)
        self._pending, self._pending_bytes = [], 0
        if self._file_bytes >= self._shard_bytes or self._file_rows >= SHARD_ROWS:
            self._file.close()
            self._file = None


def write_rows(
    folder: Path, rows: Iterable[RowT], kind: type[RowT], shard_bytes: int = SHARD_BYTES
) -> int:
    """Writes rows into shards and returns how many there were."""
    with RowWriter(folder, kind, shard_bytes) as writer:
        for row in rows:
            writer.write(row)
    return writer.rows


class Rows(Sequence[RowT]):
    """The rows of a folder's shards, by position; iterating reads each row group once.
    Thread-safe.

    Raises:
        ConfigurationError: when the folder has no shard or a shard lacks a column.
    """

    def __init__(self, folder: Path, kind: type[RowT]) -> None:
        paths = sorted(folder.glob("*.parquet"))
        if not paths:
            raise ConfigurationError(Reason.INVALID_DATA, f"no Parquet shards in {folder.name}")
        self._kind = kind
        self._columns = [field.name for field in fields(kind)]
        self._files = [pq.ParquetFile(path) for path in paths]
        self._groups: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._length = 0
        for number, file in enumerate(self._files):
            absent = set(self._columns) - set(file.schema_arrow.names)
            if absent:
                raise ConfigurationError(
                    Reason.INVALID_DATA,
                    f"{folder.name}/{paths[number].name} has no column {', '.join(sorted(absent))}",
                )
            for group in range(file.metadata.num_row_groups):
                self._groups.append((number, group))
                self._starts.append(self._length)
                self._length += file.metadata.row_group(group).num_rows
        self._cache: OrderedDict[int, list[RowT]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> RowT: ...
    @overload
    def __getitem__(self, index: slice) -> "list[RowT]": ...
    def __getitem__(self, index: int | slice) -> "RowT | list[RowT]":
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(f"row {index} of {self._length}")
        index %= self._length
        number = bisect_right(self._starts, index) - 1
        return self._group(number)[index - self._starts[number]]

    def __iter__(self) -> Iterator[RowT]:
        for number in range(len(self._groups)):
            with self._lock:
                rows = self._read(number)
            yield from rows

    def _group(self, number: int) -> list[RowT]:
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
            rows = self._cache[number] = self._read(number)
            if len(self._cache) > _CACHED_GROUPS:
                self._cache.popitem(last=False)
            return rows

    def _read(self, number: int) -> list[RowT]:
        file, group = self._groups[number]
        table = self._files[file].read_row_group(group, columns=self._columns)
        return [self._kind(**_as_fields(values)) for values in table.to_pylist()]


def open_rows(folder: Path) -> Rows[Row]:
    """The preference rows of a folder, whatever further columns it has."""
    return Rows(folder, Row)


def open_annotated(folder: Path) -> Rows[AnnotatedRow]:
    """The annotated rows of a folder."""
    return Rows(folder, AnnotatedRow)


def open_set(folder: Path) -> Rows[SetRow]:
    """The rows of an evaluation set."""
    return Rows(folder, SetRow)


def _as_fields(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "images": tuple(values["images"])}
