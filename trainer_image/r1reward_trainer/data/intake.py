# SPDX-License-Identifier: Apache-2.0
"""Reads sources once: good rows onwards, bad rows to quarantine, figures to quality."""

import json
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.media import Beside
from r1reward_trainer.data.quality import CountTokens, Quality
from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.schema import (
    BadRecord,
    LeftOut,
    Media,
    Position,
    Record,
    image_paths,
)
from r1reward_trainer.data.sources import Source, read_file
from r1reward_trainer.data.split import HASH_BYTES, ImageHash, image_hash
from r1reward_trainer.outcome import StageError

RowT = TypeVar("RowT", bound=Row)
Parse = Callable[[Record, Media], RowT]
Check = Callable[[RowT], None]
"""Raises BadRecord for a row that the model cannot take."""


class ImageHashes(Sequence[tuple[ImageHash, ...]]):
    """For each row, in order, the hashes of its images; a few bytes each."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._ends = array("Q", [0])

    def append(self, hashes: Sequence[ImageHash]) -> None:
        """Takes in a row's."""
        self._hashes += b"".join(hashes)
        self._ends.append(len(self._hashes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[ImageHash, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[ImageHash, ...]]: ...
    def __getitem__(
        self, index: int | slice
    ) -> tuple[ImageHash, ...] | list[tuple[ImageHash, ...]]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        starts = range(self._ends[row], self._ends[row + 1], HASH_BYTES)
        return tuple(bytes(self._hashes[start : start + HASH_BYTES]) for start in starts)


@dataclass
class Intake:
    """What was read.

    Attributes:
        quality: figures over the rows.
        images: for each good row, in order, the hashes of its images.
        bad_examples: the first bad rows, in words.
    """

    quality: Quality = field(default_factory=Quality)
    images: ImageHashes = field(default_factory=ImageHashes)
    bad_examples: list[str] = field(default_factory=list)


_IMAGES_AHEAD = 8
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 250


def take_in(
    sources: Sequence[Source],
    parse: Parse[RowT],
    check: Check[RowT],
    write: Callable[[RowT], object],
    quarantine: Path,
    scratch: Path,
    max_rows: int | None,
    tick: Callable[[int], None],
    count_tokens: CountTokens | None = None,
) -> Intake:
    """Reads the files in order.

    Args:
        sources: what is read.
        parse: a record of the one schema as a row; raises BadRecord.
        check: what else a row must fulfil.
        write: gets the good rows.
        quarantine: JSONL file to which bad rows are appended: source, line, reason, detail.
        scratch: for downloads.
        max_rows: ends after this many records, good or bad.
        tick: called with the number of records read.
        count_tokens: of a text, for the figures.
    """
    intake = Intake(Quality(count_tokens))
    with quarantine.open("a") as bad:
        for number, read in enumerate(_ahead(_read_all(sources, scratch)), 1):
            if max_rows is not None and number > max_rows:
                break
            if read.left_out is not None:
                intake.quality.note_left_out(read.left_out)
            for record in read.records:
                try:
                    if isinstance(record, BadRecord):
                        raise record
                    row = parse(record, read.media)
                    check(row)
                except BadRecord as error:
                    error = _named(error, read.importer)
                    _note_bad(intake, read.position, error)
                    bad.write(json.dumps(_bad_row(read.position, record, error)) + "\n")
                else:
                    hashes = tuple(image_hash(image) for image in row.images)
                    intake.images.append(hashes)
                    intake.quality.note(row, hashes)
                    write(row)
            tick(number)
    return intake


@dataclass(frozen=True)
class _Read:
    """A raw record, read.

    Attributes:
        importer: of its source.
        position: where it stands.
        media: what lies beside its file.
        records: what it holds, in the one schema.
        left_out: why it holds nothing though it is in order; None when it does.
    """

    importer: Importer
    position: Position
    media: Beside
    records: list[Record | BadRecord] = field(default_factory=list)
    left_out: str | None = None


def _ahead(reads: Iterator[_Read]) -> Iterator[_Read]:
    """The same, in order, while images of the next rows are being read.

    A row that holds its images itself gains nothing by this, and may be large: no further row is
    read before it has been dealt with.
    """
    waiting: deque[tuple[_Read, list[Future[bytes]]]] = deque()
    images = 0
    try:
        for read in reads:
            begun = [read.media.begin(path) for path in _paths(read)]
            waiting.append((read, begun))
            images += len(begun)
            while waiting and (images >= _IMAGES_AHEAD or not begun):
                first, held = waiting.popleft()
                images -= len(held)
                yield first
    except StageError:  # of a later row: those before it come first
        yield from (read for read, _ in waiting)
        raise
    yield from (read for read, _ in waiting)


def _paths(read: _Read) -> list[str]:
    found = (record for record in read.records if not isinstance(record, BadRecord))
    paths = dict.fromkeys(path for record in found for path in image_paths(record))
    return list(islice(paths, _IMAGES_AHEAD))


def _read_all(sources: Sequence[Source], scratch: Path) -> Iterator[_Read]:
    for source in sources:
        for file in source.files:
            for position, raw, media in read_file(source, file, scratch):
                yield _read(source.importer, position, raw, media)


def _read(importer: Importer, position: Position, raw: Record | BadRecord, media: Beside) -> _Read:
    """What a raw record holds; a row without an id is named after its place."""
    if isinstance(raw, BadRecord):
        return _Read(importer, position, media, [raw])
    try:
        found = importer.rows(raw)
    except BadRecord as error:
        return _Read(importer, position, media, [error])
    except LeftOut as reason:
        return _Read(importer, position, media, left_out=reason.why)
    place = f"{Path(position.uri).name}:{position.line}"
    named: list[Record | BadRecord] = [
        {**record, "id": place if len(found) == 1 else f"{place}-{n}"}
        if importer.names_rows and record.get("id") is None
        else record
        for n, record in enumerate(found)
    ]
    return _Read(importer, position, media, named)


def _named(error: BadRecord, importer: Importer) -> BadRecord:
    """The error with the file's own name of the field, where that is another."""
    ours = error.detail.partition(" ")[0].partition("[")[0]
    theirs = importer.names.get(ours)
    if theirs is None:
        return error
    return BadRecord(error.reason, f"{error.detail} ({ours} is {theirs} in the file)")


def _note_bad(intake: Intake, position: Position, error: BadRecord) -> None:
    intake.quality.note_bad(error.reason)
    if len(intake.bad_examples) < _EXAMPLES:
        detail = error.detail[:_EXAMPLE_CHARACTERS]
        intake.bad_examples.append(f"{position.uri} line {position.line}: {detail}")


def _bad_row(position: Position, record: Record | BadRecord, error: BadRecord) -> dict[str, object]:
    identity = None if isinstance(record, BadRecord) else record.get("id")
    return {
        "source": position.uri,
        "line": position.line,
        "id": identity[:200] if isinstance(identity, str) else None,
        "reason": error.reason.value,
        "detail": error.detail,
    }
