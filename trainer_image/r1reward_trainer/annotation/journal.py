# SPDX-License-Identifier: Apache-2.0
"""What the teacher has answered, kept in S3 as it comes: an answer is paid for once.

A shard's journal is a folder of segments. All answers that arrive while one
segment is being written go into the next one together, so the journal keeps up
with any rate, and `append` returns when the answer is safe. Whoever waits for
that before asking on loses, when killed, only what was in flight.
"""

import asyncio
import json
import logging
from dataclasses import asdict, dataclass

from r1reward_trainer.storage.s3 import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """One answer of the teacher.

    Attributes:
        row: position of the row in the input.
        attempt: from 1.
        text: as the teacher wrote it; empty when it refused.
        temperature: at which it was sampled.
        refused: the service would not answer.
        faults: tries that failed before it came.
    """

    row: int
    attempt: int
    text: str
    temperature: float
    refused: bool = False
    faults: int = 0


class Journal:
    """The journal of one shard.

    Args:
        store: of the run.
        prefix: the shard's folder.
        writer: name of this writer, other than that of any earlier one.
    """

    def __init__(self, store: Store, prefix: str, writer: str) -> None:
        self._store = store
        self._prefix = prefix
        self._writer = writer
        self._segments = 0
        self._pending: list[tuple[Answer, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    def load(self) -> list[Answer]:
        """The answers of all writers so far; one a row and attempt."""
        answers: dict[tuple[int, int], Answer] = {}
        for segment in self._store.list(f"{self._prefix}/"):
            for answer in decode(self._store.get(segment.key)):
                answers.setdefault((answer.row, answer.attempt), answer)
        return list(answers.values())

    async def append(self, answer: Answer) -> None:
        """Writes an answer; returns when it is in storage.

        Raises:
            StageError: storage failed.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((answer, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await written

    async def drain(self) -> None:
        """Waits for what is being written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            key = f"{self._prefix}/{self._writer}-{self._segments:06d}.jsonl"
            self._segments += 1
            try:
                await asyncio.to_thread(self._store.put, key, encode([a for a, _ in batch]))
            except Exception as error:
                for _, written in batch:
                    if not written.done():
                        written.set_exception(error)
            else:
                for _, written in batch:
                    if not written.done():  # its waiter may have been cancelled
                        written.set_result(None)


def answered(store: Store, prefix: str) -> bool:
    """Whether the teacher has answered any question of the run that it did not refuse.

    Args:
        store: of the run.
        prefix: the folder of all shards' journals.
    """
    segments = (decode(store.get(found.key)) for found in store.list(f"{prefix}/"))
    return any(not answer.refused for answers in segments for answer in answers)


def encode(answers: list[Answer]) -> bytes:
    """A segment: one JSON object a line."""
    return "".join(json.dumps(asdict(answer)) + "\n" for answer in answers).encode()


def decode(segment: bytes) -> list[Answer]:
    """The answers of a segment. Lines that are none are left out: they are asked again."""
    answers = []
    for line in segment.splitlines():
        try:
            answers.append(Answer(**json.loads(line)))
        except (ValueError, TypeError):
            logger.warning("a journal line of %d bytes is damaged", len(line))
    return answers
