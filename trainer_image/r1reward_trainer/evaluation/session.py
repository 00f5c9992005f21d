# SPDX-License-Identifier: Apache-2.0
"""All models judge all rows, one model after the other, a chunk of rows at a time."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from r1reward_trainer.context import StageContext
from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation.candidates import Candidate
from r1reward_trainer.evaluation.journal import Journal
from r1reward_trainer.evaluation.judging import AskingRules, judge_rows
from r1reward_trainer.evaluation.predictions import GREEDY, SCHEMA, to_table
from r1reward_trainer.rollout import RolloutFleet
from r1reward_trainer.rollout.failures import rollout_errors, stored_weight_errors

logger = logging.getLogger(__name__)

_ANSWERS_PER_CHUNK = 1024
"""So often the work is saved and reported; large enough to keep several servers busy."""


def judge_all(
    context: StageContext,
    models: Sequence[Candidate],
    rows: Sequence[Row],
    chosen: Sequence[int],
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
        rows: all held-out rows.
        chosen: positions of the rows to use.
        rules: how to ask.
        fleet: the rollout servers.
        journal: takes what is done and gives back what an earlier attempt did.
        path: the file.

    Raises:
        InfrastructureError: no rollout server can be used.
        Interrupted: after SIGTERM, between two chunks.
    """
    size = max(1, _ANSWERS_PER_CHUNK // rules.answers_per_row)
    chunks = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    meter = _Meter(context, len(models) * len(chosen) * rules.answers_per_row)
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for model in models:
            loaded = False
            for number, positions in enumerate(chunks):
                context.raise_if_stopped(meter.done)
                table = journal.read(model.name, number, positions, rules.answers_per_row)
                if table is not None:
                    meter.skip(len(table))
                else:
                    if not loaded:
                        _load(context, fleet, model, meter)
                        loaded = True
                    table = _ask(model, [(i, rows[i]) for i in positions], rules, fleet)
                    journal.write(model.name, number, table)
                    meter.count(model.name, table)
                writer.write_table(table)


def _load(context: StageContext, fleet: RolloutFleet, model: Candidate, meter: "_Meter") -> None:
    meter.restart(f"loading {model.name} into the rollout servers")
    with stored_weight_errors(context.store, model.weights):
        timings = fleet.set_weights(model.weights)
    logger.info("weights %s on %d rollout servers", model.weights.version, len(timings))
    meter.restart(f"judging with {model.name}")


def _ask(
    model: Candidate, rows: Sequence[tuple[int, Row]], rules: AskingRules, fleet: RolloutFleet
) -> pa.Table:
    with rollout_errors():
        return to_table(
            judge_rows(rows, model.name, model.weights.version, rules, model.renderer, fleet)
        )


class _Meter:
    """Progress with rates; what came from the journal does not count towards them."""

    def __init__(self, context: StageContext, total: int) -> None:
        self.done = 0
        self._progress = context.progress
        self._total = total
        self._since = time.monotonic()

    def restart(self, message: str) -> None:
        """The next chunk's time begins only now."""
        self._progress.update(step=self.done, total=self._total, message=message)
        self._since = time.monotonic()

    def skip(self, answers: int) -> None:
        """Notes answers that were there already."""
        self.done += answers
        self.restart("taking over answers of an earlier attempt")

    def count(self, model: str, table: pa.Table) -> None:
        """Notes a chunk of answers."""
        seconds = max(time.monotonic() - self._since, 1e-6)
        self.done += len(table)
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
