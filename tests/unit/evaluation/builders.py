# SPDX-License-Identifier: Apache-2.0
"""Predictions of judges whose behaviour is known."""

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation.predictions import (
    GREEDY,
    ORDERS,
    Judgements,
    Prediction,
    gold_in_order,
    judgements,
    to_table,
)

LOG_ODDS = 2.0
"""How sure the judges are of each verdict."""

Says = Callable[[int, str, int], int | None]
"""Verdict by row position, order and sample."""


def row(position: int = 0, **changes: object) -> Row:
    """A preference row; gold alternates."""
    values = {
        "id": f"row-{position}",
        "question": "Which digit is it?",
        "answer1": "seven",
        "answer2": "nine",
        "gold": 1 + position % 2,
        "images": (),
        "source": "digits",
        **changes,
    }
    return Row(**values)  # type: ignore[arg-type]


def rows(count: int) -> list[Row]:
    """So many rows."""
    return [row(i) for i in range(count)]


def predictions(
    given: Sequence[Row], says: Says, *, votes: int = 0, model: str = "rl"
) -> list[Prediction]:
    """What a judge that answers by `says` predicts."""
    return [
        _prediction(position, r, order, sample, says(position, order, sample), model)
        for position, r in enumerate(given)
        for order in ORDERS
        for sample in range(1 + votes)
    ]


def _prediction(
    position: int, given: Row, order: str, sample: int, verdict: int | None, model: str
) -> Prediction:
    said = "I cannot tell." if verdict is None else f"<answer>{verdict}</answer>"
    return Prediction(
        model=model,
        row=position,
        row_id=given.id,
        source=given.source,
        order=order,
        sample=sample,
        temperature=0.0 if sample == GREEDY else 1.0,
        response=f"<think>It is {position}.</think>{said}",
        verdict=verdict,
        log_odds=None if verdict is None else LOG_ODDS * (3 - 2 * verdict),
        gold=gold_in_order(given.gold, order),
        tokens=10 + position % 3,
        truncated=False,
        weights=f"{model}-0123456789ab",
    )


def judged(given: Sequence[Row], says: Says, *, votes: int = 0) -> Judgements:
    """The judge's predictions as arrays."""
    return judgements(to_table(predictions(given, says, votes=votes)), "rl")


def table(*parts: Iterable[Prediction]) -> pa.Table:
    """All of them."""
    return to_table(p for part in parts for p in part)


def right(given: Sequence[Row]) -> Says:
    """A judge that is always right."""
    return lambda position, order, _: gold_in_order(given[position].gold, order)
