# SPDX-License-Identifier: Apache-2.0
"""Predictions of judges whose behaviour is known."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

import pyarrow as pa

from r1reward_trainer.data.rows import Row, SetRow
from r1reward_trainer.evaluation.benchmarks import Benchmark
from r1reward_trainer.evaluation.predictions import (
    GREEDY,
    HELDOUT,
    ORDERS,
    Judgements,
    Prediction,
    gold_in_order,
    judgements,
    to_table,
)
from r1reward_trainer.evaluation.protocols import released_choice
from r1reward_trainer.evaluation.reflection import reflections
from r1reward_trainer.evaluation.sets import category_of, item_of

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


def set_row(position: int, item: str, category: str, **changes: object) -> SetRow:
    """A row of an evaluation set."""
    return SetRow(**asdict(row(position, **changes)), item=item, category=category)


def rows(count: int) -> list[Row]:
    """So many rows."""
    return [row(i) for i in range(count)]


def predictions(
    given: Sequence[Row],
    says: Says,
    *,
    votes: int = 0,
    model: str = "rl",
    of: str = HELDOUT,
    benchmark: Benchmark | None = None,
) -> list[Prediction]:
    """What a judge that answers by `says` predicts, all votes asked for."""
    return [
        _prediction(position, r, order, sample, says(position, order, sample), model, of, benchmark)
        for position, r in enumerate(given)
        for order in ORDERS
        for sample in range(1 + votes)
    ]


def _prediction(
    position: int,
    given: Row,
    order: str,
    sample: int,
    verdict: int | None,
    model: str,
    of: str,
    benchmark: Benchmark | None,
) -> Prediction:
    said = "I cannot tell." if verdict is None else f"<answer>{verdict}</answer>"
    response = f"<think>Wait, let me re-check: it is so.</think>{said}"
    return Prediction(
        model=model,
        set=of,
        row=position,
        row_id=given.id,
        item=item_of(given),
        cluster=position,
        category=category_of(given),
        source=given.source,
        order=order,
        sample=sample,
        temperature=0.0 if sample == GREEDY else 1.0,
        response=response,
        verdict=verdict,
        log_odds=None if verdict is None else LOG_ODDS * (3 - 2 * verdict),
        released=released_choice(response, benchmark),
        gold=gold_in_order(given.gold, order),
        tokens=10 + position % 3,
        truncated=False,
        reflections=reflections(response),
        seconds=0.5,
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
