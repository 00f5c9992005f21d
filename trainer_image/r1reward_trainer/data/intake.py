# SPDX-License-Identifier: Apache-2.0
"""Reads all sources once: good rows to a spool, bad rows to quarantine, figures to quality."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from r1reward_trainer.data.quality import Quality
from r1reward_trainer.data.rows import Row, RowWriter
from r1reward_trainer.data.schema import BadRecord, Position, ReadImage, Record
from r1reward_trainer.data.sources import SourceFile, read_file
from r1reward_trainer.data.split import ImageHash, image_hash

RowT = TypeVar("RowT", bound=Row)
Parse = Callable[[Record, ReadImage], RowT]
Check = Callable[[RowT], None]
"""Raises BadRecord for a row that the model cannot take."""


@dataclass
class Intake:
    """What was read.

    Attributes:
        quality: figures over the rows.
        images: for each good row, in order, the hashes of its images.
        bad_examples: the first bad rows, in words.
    """

    quality: Quality = field(default_factory=Quality)
    images: list[tuple[ImageHash, ...]] = field(default_factory=list)
    bad_examples: list[str] = field(default_factory=list)


_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 250


def take_in(
    files: list[SourceFile],
    parse: Parse[RowT],
    check: Check[RowT],
    spool: RowWriter[RowT],
    quarantine: Path,
    scratch: Path,
    max_rows: int | None,
    tick: Callable[[int], None],
) -> Intake:
    """Reads the files in order.

    Args:
        files: the sources.
        parse: a record as a row; raises BadRecord.
        check: what else a row must fulfil.
        spool: gets the good rows.
        quarantine: JSONL file to which bad rows are appended: source, line, reason, detail.
        scratch: for downloads.
        max_rows: ends after this many records, good or bad.
        tick: called with the number of records read.
    """
    intake = Intake()
    with quarantine.open("a") as bad:
        for number, (position, record, read_image) in enumerate(_read_all(files, scratch), 1):
            if max_rows is not None and number > max_rows:
                break
            try:
                if isinstance(record, BadRecord):
                    raise record
                row = parse(record, read_image)
                check(row)
            except BadRecord as error:
                _note_bad(intake, position, error)
                bad.write(json.dumps(_bad_row(position, record, error)) + "\n")
            else:
                hashes = tuple(image_hash(image) for image in row.images)
                intake.images.append(hashes)
                intake.quality.note(row, hashes)
                spool.write(row)
            tick(number)
    return intake


def _read_all(
    files: list[SourceFile], scratch: Path
) -> Iterator[tuple[Position, Record | BadRecord, ReadImage]]:
    for file in files:
        yield from read_file(file, scratch)


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
