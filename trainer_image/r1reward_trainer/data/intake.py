# SPDX-License-Identifier: Apache-2.0
"""Reads sources once: good rows onwards, bad rows to quarantine, figures to quality."""

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, overload

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.quality import CountTokens, Quality
from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.schema import BadRecord, LeftOut, Media, Position, Record
from r1reward_trainer.data.sources import Source, read_file
from r1reward_trainer.data.split import HASH_BYTES, ImageHash, image_hash

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
        for number, (importer, position, raw, media) in enumerate(_read_all(sources, scratch), 1):
            if max_rows is not None and number > max_rows:
                break
            for record in _records(importer, position, raw, intake.quality):
                try:
                    if isinstance(record, BadRecord):
                        raise record
                    cut = media.videos_cut
                    row = parse(record, media)
                    check(row)
                except BadRecord as error:
                    error = _named(error, importer)
                    _note_bad(intake, position, error)
                    bad.write(json.dumps(_bad_row(position, record, error)) + "\n")
                else:
                    hashes = tuple(image_hash(image) for image in row.images)
                    intake.images.append(hashes)
                    intake.quality.note(row, hashes, fewer_frames=media.videos_cut > cut)
                    write(row)
            tick(number)
    return intake


def _read_all(
    sources: Sequence[Source], scratch: Path
) -> Iterator[tuple[Importer, Position, Record | BadRecord, Media]]:
    for source in sources:
        for file in source.files:
            for position, record, media in read_file(source, file, scratch):
                yield source.importer, position, record, media


def _records(
    importer: Importer, position: Position, raw: Record | BadRecord, quality: Quality
) -> list[Record | BadRecord]:
    """What a raw record holds; a row without an id is named after its place."""
    if isinstance(raw, BadRecord):
        return [raw]
    try:
        found = importer.rows(raw)
    except BadRecord as error:
        return [error]
    except LeftOut as reason:
        quality.note_left_out(reason.why)
        return []
    place = f"{Path(position.uri).name}:{position.line}"
    return [
        {**record, "id": place if len(found) == 1 else f"{place}-{n}"}
        if importer.names_rows and record.get("id") is None
        else record
        for n, record in enumerate(found)
    ]


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
