# SPDX-License-Identifier: Apache-2.0
"""Which answers the report shows."""

import random
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation.judging import in_order
from r1reward_trainer.evaluation.predictions import GREEDY
from r1reward_trainer.evaluation.report.document import Transcript
from r1reward_trainer.method.reasons import format_reason, result_reason

EACH = 4
"""Right ones, and as many wrong ones."""


def choose(
    predictions: pa.Table, rows: Sequence[Row], models: Sequence[str], seed: int
) -> list[Transcript]:
    """Some greedy answers of the last model, drawn by seed: wrong ones first.

    Args:
        predictions: with all columns.
        rows: by the predictions' positions.
        models: in the order in which they were trained.
        seed: of the draw.
    """
    greedy = predictions.filter(pc.field("sample") == GREEDY)
    last = greedy.filter(pc.field("model") == models[-1])
    generator = random.Random(seed)
    chosen: list[Transcript] = []
    for correct in (False, True):
        own = last.filter(pc.field("correct") == correct)
        picked = sorted(generator.sample(range(len(own)), min(EACH, len(own))))
        for record in own.take(pa.array(picked, pa.int64())).to_pylist():
            answer1, answer2 = in_order(rows[record["row"]], record["order"])
            chosen.append(
                Transcript(
                    row=record["row"],
                    row_id=record["row_id"],
                    order=record["order"],
                    question=rows[record["row"]].question,
                    answer1=answer1,
                    answer2=answer2,
                    gold=record["gold"],
                    verdict=record["verdict"],
                    correct=correct,
                    tokens=record["tokens"],
                    response=record["response"],
                    result_reason=result_reason(
                        record["response"], record["verdict"], record["gold"]
                    ),
                    format_reason=format_reason(record["response"]),
                    others=_verdicts(greedy, models[:-1], record["row"], record["order"]),
                )
            )
    return chosen


def _verdicts(
    greedy: pa.Table, models: Sequence[str], row: int, order: str
) -> dict[str, int | None]:
    same = greedy.filter((pc.field("row") == row) & (pc.field("order") == order))
    verdicts = dict(zip(same["model"].to_pylist(), same["verdict"].to_pylist(), strict=True))
    return {model: verdicts[model] for model in models}
