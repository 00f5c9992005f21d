# SPDX-License-Identifier: Apache-2.0
"""Scoring files: chunks of rows become parts of the output, each whole or not there at all.

A part's name says which rows of which file it holds, so a run that was killed goes on where it
ended, and nothing is asked twice that was written. At most two chunks are in memory.
"""

import asyncio
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.scoring.asking import Patience, Scorer, ask
from r1reward_trainer.scoring.files import (
    InputFile,
    beside,
    json_line,
    open_output,
    records,
)
from r1reward_trainer.scoring.items import MAX_ID, BadItem, parse_item
from r1reward_trainer.scoring.protocol import ScoreResponse
from r1reward_trainer.scoring.target import Target, connected
from r1reward_trainer.scoring.together import all_or_first_error

logger = logging.getLogger(__name__)

CHUNK_ROWS = 32
"""A kill repeats so many rows, at most twice; a part has so many lines."""
CHUNKS_AT_ONCE = 2
"""While the last rows of one are awaited, the next one's are asked."""


@dataclass(frozen=True)
class Options:
    """What a run does; it can be sent to another process.

    Attributes:
        target: whom to ask.
        output: path or s3:// URI of the folder for the scores.
        concurrency: rows that are asked about at once, in all processes together.
        processes: among which the files are spread.
        max_bad_rows: rows that may be put aside with their reason, in one file.
        patience_seconds: how long a model may be out.
        full_seconds: how long it may be out or full while no row of a file is scored.
    """

    target: Target
    output: str
    concurrency: int = 16
    processes: int = 1
    max_bad_rows: int = 0
    patience_seconds: float = 600.0
    full_seconds: float = 3600.0

    def patience(self) -> Patience:
        """Of one file's rows, together."""
        return Patience(self.patience_seconds, self.full_seconds)


def score_file(file: InputFile, options: Options, weights: str) -> int:
    """Scores what the output lacks of a file; returns the rows scored now.

    Raises:
        StageError: as `score_files`.
    """
    return asyncio.run(_score_file(file, options, weights))


async def _score_file(file: InputFile, options: Options, weights: str) -> int:
    output = open_output(options.output)
    done = await asyncio.to_thread(output.names)
    chunks = asyncio.Semaphore(CHUNKS_AT_ONCE)
    run = _Run(file, options, weights, asyncio.Semaphore(_share(options)))
    rows = 0
    with tempfile.TemporaryDirectory() as scratch:
        async with connected(options.target) as scorer:

            async def work(number: int, chunk: list[Any]) -> None:
                try:
                    lines = await run.chunk(scorer, number, chunk)
                    await asyncio.to_thread(output.put, part_name(file, number), lines)
                finally:
                    chunks.release()

            try:
                async with asyncio.TaskGroup() as group:
                    reading = chunked(records(file, Path(scratch)))
                    number = 0
                    while True:
                        await chunks.acquire()
                        chunk = await asyncio.to_thread(next, reading, None)
                        if chunk is None:
                            break
                        if part_name(file, number) in done:
                            run.had(await asyncio.to_thread(output.get, part_name(file, number)))
                            chunks.release()
                        else:
                            rows += len(chunk)
                            group.create_task(work(number, chunk))
                        number += 1
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
    return rows


def _share(options: Options) -> int:
    return max(1, options.concurrency // max(1, options.processes))


def part_name(file: InputFile, number: int) -> str:
    """Of a chunk's lines."""
    return f"{file.name}-{number:06d}.jsonl"


def chunked(rows: Iterator[Any], size: int = CHUNK_ROWS) -> Iterator[list[Any]]:
    """The rows, so many at a time."""
    while chunk := list(islice(rows, size)):
        yield chunk


class _Run:
    """One file's rows on their way."""

    def __init__(
        self, file: InputFile, options: Options, weights: str, places: asyncio.Semaphore
    ) -> None:
        self._file = file
        self._beside = beside(file)
        self._options = options
        self._weights = weights
        self._places = places
        self._patience = options.patience()
        self._bad = 0

    def had(self, lines: bytes | None) -> None:
        """Counts the bad rows of a part that is there."""
        self._bad += sum("error" in json.loads(line) for line in (lines or b"").splitlines())

    async def chunk(self, scorer: Scorer, number: int, rows: Sequence[Any]) -> bytes:
        first = number * CHUNK_ROWS + 1
        work = [self._line(scorer, first + place, row) for place, row in enumerate(rows)]
        lines = await all_or_first_error(work)
        return b"".join(json_line(line) for line in lines)

    async def _line(self, scorer: Scorer, line: int, row: Any) -> dict[str, Any]:
        place = f"{self._file.uri}:{line}"
        async with self._places:
            try:
                if isinstance(row, ValueError):
                    raise BadItem(str(row))
                item = await asyncio.to_thread(parse_item, row, place, self._beside.image)
                score = await ask(scorer, item.request, self._patience)
            except BadItem as error:
                return self._put_aside(row, place, line, str(error))
        if score.weights != self._weights:
            raise ConfigurationError(
                Reason.INVALID_SPEC,
                f"the model has other weights now ({score.weights}, not {self._weights}): score "
                "again with another --output",
            )
        return {"id": item.id, "file": self._file.uri, "line": line, **_wire(score)}

    def _put_aside(self, row: Any, place: str, line: int, reason: str) -> dict[str, Any]:
        self._bad += 1
        if self._bad > self._options.max_bad_rows:
            raise ConfigurationError(
                Reason.INVALID_DATA,
                f"{place}: {reason}; --max-bad-rows ({self._options.max_bad_rows}) allows no more",
            )
        logger.warning("%s is put aside: %s", place, reason)
        given = row.get("id") if isinstance(row, dict) else None
        name = place if given is None else str(given)[:MAX_ID]
        return {"id": name, "file": self._file.uri, "line": line, "error": reason}


def _wire(score: ScoreResponse) -> dict[str, Any]:
    """As the front answers, with its nulls."""
    return score.model_dump(mode="json", by_alias=True)
