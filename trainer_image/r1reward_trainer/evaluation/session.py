# SPDX-License-Identifier: Apache-2.0
"""All models judge all rows, one model after the other, a chunk of rows at a time."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from r1reward_trainer.context import StageContext
from r1reward_trainer.evaluation.candidates import Candidate
from r1reward_trainer.evaluation.journal import Journal
from r1reward_trainer.evaluation.judging import AskingRules, judge_rows
from r1reward_trainer.evaluation.predictions import GREEDY, SCHEMA, to_table
from r1reward_trainer.evaluation.sets import EvaluationSet
from r1reward_trainer.rollout import RolloutFleet
from r1reward_trainer.rollout.failures import rollout_errors, stored_weight_errors

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ANSWERS_PER_CHUNK = 1024
"""So often the work is saved and reported; large enough to keep several servers busy."""
_CHUNKS_AT_ONCE = 2
"""While the last answers of one chunk are written, the servers have the next one's prompts."""
_LOOK_SECONDS = 0.5
"""So soon SIGTERM is heard while the servers are waited for."""


@dataclass(frozen=True)
class _Chunk:
    """Rows that are saved together."""

    given: EvaluationSet
    number: int
    positions: Sequence[int]


def judge_all(
    context: StageContext,
    models: Sequence[Candidate],
    sets: Sequence[EvaluationSet],
    rules: AskingRules,
    fleet: RolloutFleet,
    journal: Journal,
    path: Path,
) -> None:
    """Writes all predictions to a Parquet file.

    A model's weights are brought to the servers only when something is left to ask it.

    Args:
        context: of the stage.
        models: in the order in which they were trained.
        sets: what to judge.
        rules: how to ask.
        fleet: the rollout servers.
        journal: takes what is done and gives back what an earlier attempt did.
        path: the file.

    Raises:
        InfrastructureError: no rollout server can be used.
        Interrupted: after SIGTERM; chunks whose last answer has come are in the journal.
    """
    chunks = [chunk for given in sets for chunk in _chunks(given, rules)]
    rows = sum(len(chunk.positions) for chunk in chunks)
    meter = _Meter(context, len(models) * rows * rules.answers_per_row)
    path.parent.mkdir(parents=True)
    pool = ThreadPoolExecutor(_CHUNKS_AT_ONCE, thread_name_prefix="r1-judge")
    try:
        with pq.ParquetWriter(path, SCHEMA) as writer:
            for model in models:
                for table in _judge(context, model, chunks, rules, fleet, journal, meter, pool):
                    writer.write_table(table)
    finally:  # after an error, what is under way ends with the fleet
        pool.shutdown(wait=False, cancel_futures=True)


def _chunks(given: EvaluationSet, rules: AskingRules) -> Iterator[_Chunk]:
    size = max(1, _ANSWERS_PER_CHUNK // rules.answers_per_row)
    for number, start in enumerate(range(0, len(given.chosen), size)):
        yield _Chunk(given, number, given.chosen[start : start + size])


def _judge(
    context: StageContext,
    model: Candidate,
    chunks: Sequence[_Chunk],
    rules: AskingRules,
    fleet: RolloutFleet,
    journal: Journal,
    meter: "_Meter",
    pool: ThreadPoolExecutor,
) -> Iterator[pa.Table]:
    """The model's predictions chunk by chunk, in order."""
    loaded = False
    asked: deque[tuple[_Chunk, Future[pa.Table]]] = deque()

    def finish() -> pa.Table:
        chunk, answers = asked[0]
        table = _with_seconds(_awaited(context, answers, meter), meter.seconds())
        asked.popleft()
        journal.write(model.name, chunk.given.name, chunk.number, table)
        meter.count(model.name, table, len(chunk.positions) * rules.answers_per_row)
        return table

    for chunk in chunks:
        if context.stop.is_set():
            while asked:
                yield finish()
            context.raise_if_stopped(meter.done)
        known = journal.read(model.name, chunk.given.name, chunk.number, chunk.positions)
        if known is not None:
            while asked:
                yield finish()
            meter.skip(len(chunk.positions) * rules.answers_per_row)
            yield known
            continue
        if not loaded:
            _load(context, fleet, model, meter, pool)
            loaded = True
        asked.append((chunk, pool.submit(_ask, model, chunk, rules, fleet)))
        if len(asked) == _CHUNKS_AT_ONCE:
            yield finish()
    while asked:
        yield finish()


def _awaited(context: StageContext, work: Future[T], meter: "_Meter") -> T:
    """What the servers do, which may take longer than a pod has to end.

    Raises:
        Interrupted: after SIGTERM, when it is not done yet.
    """
    while not wait([work], _LOOK_SECONDS).done:
        context.raise_if_stopped(meter.done)
    return work.result()


def _load(
    context: StageContext,
    fleet: RolloutFleet,
    model: Candidate,
    meter: "_Meter",
    pool: ThreadPoolExecutor,
) -> None:
    meter.restart(f"loading {model.name} into the rollout servers")
    with stored_weight_errors(context.store, model.weights):
        timings = _awaited(context, pool.submit(fleet.set_weights, model.weights), meter)
    logger.info("weights %s on %d rollout servers", model.weights.version, len(timings))
    meter.restart(f"judging with {model.name}")


def _ask(model: Candidate, chunk: _Chunk, rules: AskingRules, fleet: RolloutFleet) -> pa.Table:
    with rollout_errors():
        return to_table(
            judge_rows(
                chunk.given,
                chunk.positions,
                model.name,
                model.weights.version,
                rules,
                model.renderer,
                fleet,
            )
        )


def _with_seconds(table: pa.Table, seconds: float) -> pa.Table:
    """Each answer's share of the time that its chunk took after the one before."""
    place = table.schema.get_field_index("seconds")
    each = pa.array([seconds / max(1, len(table))] * len(table), pa.float32())
    return table.set_column(place, table.schema.field(place), each)


class _Meter:
    """Progress with rates; what came from the journal does not count towards them."""

    def __init__(self, context: StageContext, total: int) -> None:
        self.done = 0
        self._progress = context.progress
        self._total = total
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Since the chunk before."""
        return max(time.monotonic() - self._since, 1e-6)

    def restart(self, message: str) -> None:
        """The next chunk's time begins only now."""
        self._progress.update(step=self.done, total=self._total, message=message)
        self._since = time.monotonic()

    def skip(self, answers: int) -> None:
        """Notes answers that were there already."""
        self.done += answers
        self.restart("taking over answers of an earlier attempt")

    def count(self, model: str, table: pa.Table, answers: int) -> None:
        """Notes a chunk of so many answers, of which early stopping has left some out."""
        seconds = self.seconds()
        self.done += answers
        greedy = table.filter(pc.field("sample") == GREEDY)
        self._progress.update(
            step=self.done,
            total=self._total,
            metrics={
                "accuracy": float(greedy["correct"].to_numpy().mean()),
                "answers_per_second": len(table) / seconds,
                "tokens_per_second": float(table["tokens"].to_numpy().sum()) / seconds,
            },
            message=f"judging with {model}",
        )
        self._since = time.monotonic()
