# SPDX-License-Identifier: Apache-2.0
"""Where shards are worked on: in this process, or by Ray Data in several.

Asking is mostly waiting, so one process keeps a teacher busy for long. Large jobs
on large machines are spread, since encoding images and reading rows take their
share of a CPU.
"""

import asyncio
import os
import queue
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.annotation.ask import Asking, Result, annotate
from r1reward_trainer.annotation.choice import Shard
from r1reward_trainer.annotation.journal import Journal, answered
from r1reward_trainer.annotation.results import Tally, write_results
from r1reward_trainer.data.rows import open_rows
from r1reward_trainer.outcome import Interrupted
from r1reward_trainer.ray_processes import Item, processes, work_on_each
from r1reward_trainer.storage.s3 import Store
from r1reward_trainer.teacher import TeacherClient

SHARDS_AT_ONCE = 16
"""Worked on together in one process: few wait for a last slow row, and memory stays bounded."""
SHARDS_PER_PROCESS = 8
"""Fewer are not worth starting another process."""
MAX_PROCESSES = 16
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Work:
    """What each process needs; it can be sent to another one.

    Attributes:
        config: of the run.
        rows: folder with the input.
        results: folder for the results.
        processes: among which the teacher's concurrency is divided.
    """

    config: RunConfig
    rows: Path
    results: Path
    processes: int = 1


Note = Callable[[Tally], None]
"""Called with what has been finished since the last call."""


def teacher_api_key() -> str | None:
    """The key in the environment of annotate's pods, None where the teacher asks for none."""
    return os.environ.get("R1_TEACHER_API_KEY") or None


def processes_for(shards: int, cpus: int) -> int:
    """How many processes so many shards deserve on so many CPUs."""
    return max(1, min(MAX_PROCESSES, cpus - 1, shards // SHARDS_PER_PROCESS))


def work_on(
    work: Work,
    shards: Sequence[Shard],
    store: Store,
    api_key: str | None,
    stop: threading.Event,
    note: Note,
) -> None:
    """Works on shards in this process; their results are written as files.

    Raises:
        Interrupted: `stop` was set.
        StageError: teacher or storage failed.
    """
    annotate_spec = work.config.spec.annotate
    if annotate_spec is None:
        raise ValueError("the job has no annotate section")
    concurrency = max(1, annotate_spec.teacher.max_concurrency // work.processes)

    def on_result(result: Result) -> None:
        tally = Tally()
        tally.note(result)
        note(tally)

    asking = Asking(
        rows=open_rows(work.rows),
        spec=annotate_spec,
        template=work.config.spec.data.prompt_template,
        concurrency=concurrency,
        stop=stop,
        on_result=on_result,
    )

    journal = f"{work.config.run_prefix}/journal"

    async def all_shards() -> None:
        async with TeacherClient(
            annotate_spec.teacher, api_key, concurrency, answered=partial(answered, store, journal)
        ) as client:
            for start in range(0, len(shards), SHARDS_AT_ONCE):
                journals = {
                    shard: Journal(
                        store,
                        f"{journal}/{shard.name}",
                        f"attempt-{work.config.attempt}-{uuid.uuid4().hex[:12]}",
                    )
                    for shard in shards[start : start + SHARDS_AT_ONCE]
                }
                for shard, results in (await annotate(asking, client, journals)).items():
                    write_results(work.results, shard, results)

    asyncio.run(all_shards())


def spread(work: Work, shards: Sequence[Shard], stop: threading.Event, note: Note) -> None:
    """Works on shards in `work.processes` processes by Ray Data; called in the main thread.

    A process that dies is started again, and its shard goes on from its journal.

    Raises:
        Interrupted: `stop` was set.
        StageError: as the first process that failed raised it.
    """
    with processes(work.processes):
        for outcome in _interruptible(_outcomes(work, shards), stop):
            note(outcome)


def _outcomes(work: Work, shards: Sequence[Shard]) -> Iterator[Tally]:
    """What each shard came to, as they are finished."""
    items = [{"number": shard.number, "rows": list(shard.rows)} for shard in shards]
    for found in work_on_each(items, partial(_work_on_one, work), work.processes):
        attempts = Counter({int(n): count for n, count in found["attempts"].items()})
        yield Tally(attempts, found["asked"], found["refused"], found["faults"])


def _work_on_one(work: Work, item: Item) -> dict[str, Any]:
    """One shard, in a process of its own."""
    total = Tally()
    shard = Shard(int(item["number"]), tuple(int(row) for row in item["rows"]))
    store = Store.from_env(work.config.root)
    work_on(work, [shard], store, teacher_api_key(), threading.Event(), total.add)
    return {
        "attempts": dict(total.attempts),
        "asked": total.asked,
        "refused": total.refused,
        "faults": total.faults,
    }


def _interruptible(outcomes: Iterator[Tally], stop: threading.Event) -> Iterator[Tally]:
    """Passes on what a thread takes from a blocking iterator; looks at `stop` meanwhile."""
    taken: queue.Queue[Tally | BaseException | None] = queue.Queue()

    def take() -> None:
        try:
            for outcome in outcomes:
                taken.put(outcome)
            taken.put(None)
        except BaseException as error:
            taken.put(error)

    threading.Thread(target=take, name="ray-outcomes", daemon=True).start()
    while True:
        try:
            outcome = taken.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if stop.is_set():
                raise Interrupted(
                    "stopped by SIGTERM; the answers so far are in the journal"
                ) from None
            continue
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome is None:
            return
        yield outcome
