# SPDX-License-Identifier: Apache-2.0
"""Reads the records of one file, a few at a time, whatever its size."""

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import count, repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from r1reward_api.reasons import Reason
from r1reward_trainer.data.schema import BadReason, BadRecord, Record
from r1reward_trainer.logs.lines import printable
from r1reward_trainer.outcome import ConfigurationError

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
MAX_RECORD_BYTES = 256 * 2**20
"""Of a line of JSONL, or of an object in a JSON list, images included."""
_CHUNK_BYTES = 2**20
_BATCH_ROWS = 64
_SHOWN_CHARACTERS = 300
_BYTES_KEPT = "surrogateescape"
"""Bytes that are not UTF-8 are read as what no UTF-8 holds, so that they cost one record."""
_SPACE = re.compile(r"\s*")

RecordOrFault = Record | BadRecord
Numbered = Iterator[tuple[int, RecordOrFault]]


def read(path: Path, uri: str, columns: Sequence[str], required: Sequence[str]) -> Numbered:
    """The records of a file.

    Args:
        path: the file.
        uri: for messages, and to know its kind.
        columns: what is read of a table.
        required: columns without which no row of a table is read.

    Yields:
        The line (of Parquet and JSON the number of the record, from 1), and the record or why it
        cannot be read.

    Raises:
        ConfigurationError: when the file cannot be read at all.
    """
    match uri.rpartition(".")[2]:
        case "parquet":
            return _parquet(path, uri, columns, required)
        case "csv":
            return _csv(path, uri)
        case "json":
            return _json(path, uri)
        case _:
            return _jsonl(path, uri)


def _parquet(path: Path, uri: str, columns: Sequence[str], required: Sequence[str]) -> Numbered:
    numbers = count(1)
    try:
        # Read in pieces: some writers put all rows into one group, which would be in memory whole.
        with pq.ParquetFile(path, buffer_size=_CHUNK_BYTES, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if absent := [name for name in required if name not in names]:
                fault = BadRecord(
                    BadReason.MISSING_FIELD,
                    f"the file has no column {', '.join(absent)}; its columns are "
                    f"{printable(', '.join(names)[:_SHOWN_CHARACTERS])}",
                )
                yield from zip(numbers, repeat(fault, file.metadata.num_rows), strict=False)
                return
            wanted = [name for name in columns if name in names]
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                # Numbers last: zip takes one of the first before it finds the second at its end.
                yield from ((n, row) for row, n in zip(batch.to_pylist(), numbers, strict=False))
    # ValueError and OverflowError for values that Python has no word for, such as a date in the
    # year 300,000.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _unreadable(uri, "Parquet", error) from error


def _jsonl(path: Path, uri: str) -> Numbered:
    empty_from: int | None = None
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(MAX_RECORD_BYTES)
            if not line:
                return  # empty lines at the end are none
            if len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"):
                raise ConfigurationError(
                    Reason.INVALID_DATA,
                    f"{uri} has a line of more than {MAX_RECORD_BYTES} bytes; "
                    "is it JSONL, with one object a line?",
                )
            if not line.strip():
                empty_from = empty_from or number
                continue
            if empty_from is not None:  # a record may be lost there
                fault = BadRecord(BadReason.NOT_JSON, "the line is empty")
                yield from zip(range(empty_from, number), repeat(fault), strict=False)
                empty_from = None
            yield number, _json_object(line)


def _json_object(line: bytes) -> RecordOrFault:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRecord(BadReason.NOT_JSON, f"{type(error).__name__}: {error}"[:200])
    return _object(value)


def _object(value: object) -> RecordOrFault:
    if isinstance(value, dict):
        return value
    return BadRecord(BadReason.NOT_JSON, f"{type(value).__name__} instead of an object")


def _json(path: Path, uri: str) -> Numbered:
    """A file that is one JSON list of objects: only one of them is in memory at a time."""
    decoder = json.JSONDecoder()
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    with path.open("rb") as file:
        text, place, end = "", 0, False  # what is before the place was read: cutting it off for
        # each object would copy all that follows

        def more() -> None:
            nonlocal text, place, end
            chunk = file.read(max(_CHUNK_BYTES, len(text) - place))  # doubles, so that a long
            end = not chunk  # object is not decoded over and over
            text, place = text[place:] + decode(chunk, final=end), 0
            if len(text) > MAX_RECORD_BYTES:
                raise ValueError(f"an object of more than {MAX_RECORD_BYTES} bytes")

        def skip(expected: str) -> str:
            """Passes white space and returns the next letter, which is passed if expected."""
            nonlocal place
            while (space := _SPACE.match(text, place)) and space.end() == len(text) and not end:
                place = len(text)
                more()
            place = space.end() if space else place
            letter = text[place : place + 1]
            if letter and letter in expected:
                place += 1
            return letter

        def nothing_follows() -> None:
            if skip(""):
                raise ValueError("something follows the list: lists that were put together?")

        try:
            if skip("[") != "[":
                raise ValueError("it must be one list of objects")
            if skip("]") == "]":
                nothing_follows()
                return
            for number in count(1):
                skip("")
                while True:
                    try:
                        value, used = decoder.raw_decode(text, place)
                        if used < len(text) or end:  # else a number may go on
                            break
                    except ValueError:
                        if end and place == 0:  # so that it says where in the object
                            raise
                    more()
                place = used
                yield number, _object(value)
                match skip(",]"):
                    case "]":
                        nothing_follows()
                        return
                    case ",":
                        continue
                    case other:
                        raise ValueError(f"{other!r} instead of a comma after object {number}")
        except (ValueError, RecursionError) as error:
            raise _unreadable(uri, "a JSON list of objects", error) from error


def _csv(path: Path, uri: str) -> Numbered:
    csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        with path.open(newline="", encoding="utf-8-sig", errors=_BYTES_KEPT) as file:
            reader = csv.reader(file, strict=True)
            header = _header(reader, uri)
            while True:
                before = reader.line_num
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if reader.line_num > before + 1:  # who knows how many rows these lines were
                        raise ConfigurationError(
                            Reason.INVALID_DATA,
                            f"{uri} lines {before + 1} to {reader.line_num}: {error}; is a quote "
                            f"in line {before + 1} not closed?",
                        ) from error
                    yield reader.line_num, BadRecord(BadReason.NOT_CSV, str(error)[:200])
                    continue
                if cells:  # an empty line is none
                    yield reader.line_num, _named(header, cells)
    except OSError as error:
        raise _unreadable(uri, "CSV", error) from error


def _header(reader: Iterator[list[str]], uri: str) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise _unreadable(uri, "CSV with a header", error) from error
    if odd := [name for name in header if not _is_utf8(name)]:
        error = ValueError(f"column {ascii(odd[0])[:_SHOWN_CHARACTERS]}")
        raise _unreadable(uri, "CSV in UTF-8", error)
    if twice := [name for name in header if header.count(name) > 1]:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"{uri} has several columns {ascii(twice[0])[:_SHOWN_CHARACTERS]}; rename or drop "
            "all but one",
        )
    return header


def _named(header: Sequence[str], cells: Sequence[str]) -> RecordOrFault:
    if len(cells) > len(header):
        return BadRecord(BadReason.NOT_CSV, "the line has more cells than the header")
    for name, cell in zip(header, cells, strict=False):
        if not _is_utf8(cell):
            return BadRecord(BadReason.NOT_CSV, f"{name} is not UTF-8")
    return {name: cell for name, cell in zip(header, cells, strict=False) if cell != ""}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(uri: str, kind: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        Reason.INVALID_DATA,
        f"{uri} cannot be read as {kind}: {str(error)[:_SHOWN_CHARACTERS]}; write it anew",
    )
