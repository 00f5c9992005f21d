# SPDX-License-Identifier: Apache-2.0
"""What the models answered: one record an answer, as rows of a Parquet table."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

ORDERS = ("Given", "Swapped")
"""Given: the answers stand as in the row. Swapped: answer 2 stands first."""

GREEDY = 0
"""The sample index of the greedy answer; votes are 1, 2, …"""

SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("order", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("temperature", pa.float32(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("verdict", pa.int8()),
        pa.field("log_odds", pa.float32()),
        pa.field("gold", pa.int8(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("weights", pa.string(), nullable=False),
    ]
)
"""Columns of predictions.parquet."""

FIGURE_COLUMNS = (
    "model",
    "row",
    "row_id",
    "source",
    "order",
    "sample",
    "verdict",
    "log_odds",
    "gold",
    "tokens",
    "truncated",
)
"""What the figures need: everything but the texts."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer of one model.

    Attributes:
        model: base, sft or rl.
        row: position of the held-out row; ids of user data may repeat.
        row_id: the row's id.
        source: where the row came from.
        order: one of ORDERS.
        sample: GREEDY, or the number of the vote from 1.
        temperature: at which it was sampled; 0 is greedy.
        response: the text without its end token.
        verdict: 1 or 2; None when the response has none.
        log_odds: ln P("1") − ln P("2") where the verdict stands; None without a verdict, or
            where it is no token of its own.
        gold: the number of the better answer in this order.
        tokens: of the response, its end token included.
        truncated: cut at the longest answer allowed.
        weights: version of the weights that answered.
    """

    model: str
    row: int
    row_id: str
    source: str
    order: str
    sample: int
    temperature: float
    response: str
    verdict: int | None
    log_odds: float | None
    gold: int
    tokens: int
    truncated: bool
    weights: str

    @property
    def correct(self) -> bool:
        """True when the verdict is the better answer; a missing verdict is wrong."""
        return self.verdict == self.gold


def gold_in_order(gold: int, order: str) -> int:
    """The number of the better answer once the answers stand in this order."""
    return gold if order == ORDERS[0] else 3 - gold


def to_table(predictions: Iterable[Prediction]) -> pa.Table:
    """The predictions with SCHEMA, in their order."""
    records = [{**asdict(p), "correct": p.correct} for p in predictions]
    return pa.Table.from_pylist(records, schema=SCHEMA)


@dataclass(frozen=True)
class Judgements:
    """One model's verdicts as arrays, rows by their position.

    Attributes:
        row_ids: [rows].
        sources: [rows].
        gold: [rows], int8, the better answer as the row gives it.
        verdicts: [rows, 2, samples], int8, axis 1 as ORDERS; 0 where there is no verdict.
        log_odds: [rows, 2, samples], of 1 against 2 as numbered in the order; NaN where there
            are none.
        tokens: [rows, 2, samples], int32.
        truncated: [rows, 2, samples], bool.
    """

    row_ids: tuple[str, ...]
    sources: tuple[str, ...]
    gold: NDArray[np.int8]
    verdicts: NDArray[np.int8]
    log_odds: NDArray[np.float64]
    tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]

    @property
    def gold_by_order(self) -> NDArray[np.int8]:
        """[rows, 2]: the number of the better answer in each order."""
        return np.stack([self.gold, 3 - self.gold], axis=1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """[rows, 2, samples]: the verdict is the better answer."""
        return self.verdicts == self.gold_by_order[:, :, None]


def judgements(table: pa.Table, model: str) -> Judgements:
    """One model's predictions as arrays.

    Args:
        table: with at least FIGURE_COLUMNS.
        model: whose.

    Raises:
        ValueError: unless every row has both orders, each with the same samples, once.
    """
    own = table.filter(pc.field("model") == model)
    rows, first, row = np.unique(own["row"].to_numpy(), return_index=True, return_inverse=True)
    order = (own["order"].to_numpy() == ORDERS[1]).astype(np.int64)
    sample = own["sample"].to_numpy()
    samples = int(sample.max(initial=GREEDY)) + 1
    shape = (len(rows), len(ORDERS), samples)
    seen = np.zeros(shape, dtype=np.int64)
    np.add.at(seen, (row, order, sample), 1)
    if not len(rows) or not (seen == 1).all():
        raise ValueError(
            f"predictions of {model}: {len(own)} answers are not {len(rows)} rows in both orders "
            f"with {samples} answers each"
        )

    def spread(column: pa.ChunkedArray, dtype: type[np.generic]) -> NDArray[Any]:
        values = np.zeros(shape, dtype=dtype)
        values[row, order, sample] = column.to_numpy()
        return values

    gold = own["gold"].to_numpy()
    return Judgements(
        row_ids=tuple(own["row_id"].take(first).to_pylist()),
        sources=tuple(own["source"].take(first).to_pylist()),
        gold=np.where(order == 0, gold, 3 - gold).astype(np.int8)[first],
        verdicts=spread(own["verdict"].fill_null(0), np.int8),
        log_odds=spread(own["log_odds"].fill_null(math.nan), np.float64),
        tokens=spread(own["tokens"], np.int32),
        truncated=spread(own["truncated"], np.bool_),
    )
