# SPDX-License-Identifier: Apache-2.0
"""The calibrated probability of every row, as a column of the predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from r1reward_trainer.evaluation import metrics
from r1reward_trainer.evaluation.predictions import FIGURE_COLUMNS, SCHEMA, judgements
from r1reward_trainer.evaluation.probability import cross_fitted, probability
from r1reward_trainer.evaluation.sets import EvaluationSet

COLUMN = pa.field("probability", pa.float64())
"""That the row's answer 1 is better, whichever stood first in the prompt: from the greedy answers
in both orders, at the temperature of other rows. The same in all predictions of a model on a row;
null where no answer of the model on the set has log-odds."""


def write_calibrated(
    judged: Path, out: Path, models: Sequence[str], sets: Sequence[EvaluationSet]
) -> None:
    """Writes the predictions once more, with COLUMN.

    Args:
        judged: predictions with SCHEMA.
        out: the file to write; its folder is made.
        models: whose predictions there are.
        sets: on what.
    """
    table = pq.read_table(judged, columns=list(FIGURE_COLUMNS))
    known = {
        (model, given.name): _by_position(table, model, given) for model in models for given in sets
    }
    out.parent.mkdir(parents=True)
    with pq.ParquetWriter(out, SCHEMA.append(COLUMN)) as writer:
        for batch in pq.ParquetFile(judged).iter_batches():
            names = ("model", "set", "row")
            rows = zip(*(batch[name].to_pylist() for name in names), strict=True)
            values = [known[model, given].get(row) for model, given, row in rows]
            column = pa.array(values, COLUMN.type)
            writer.write_batch(pa.record_batch([*batch.columns, column], SCHEMA.append(COLUMN)))


def _by_position(table: pa.Table, model: str, given: EvaluationSet) -> dict[int, float]:
    judged = judgements(table, model, given.name)
    if not np.isfinite(judged.log_odds).any():
        return {}
    margins = metrics.margin_by_row(judged)
    better: NDArray[np.float64] = probability(margins, cross_fitted(margins, judged.items))
    first = np.where(judged.gold == 1, better, 1 - better)
    return dict(zip(given.chosen, first.tolist(), strict=True))
