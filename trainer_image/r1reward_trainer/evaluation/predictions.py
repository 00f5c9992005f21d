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

HELDOUT = "heldout"
"""The set of the held-out rows; others are named by `evaluate.sets`."""

GREEDY = 0
"""The sample index of the greedy answer; votes are 1, 2, …"""

SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("set", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("order", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("temperature", pa.float32(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("verdict", pa.int8()),
        pa.field("log_odds", pa.float32()),
        pa.field("released", pa.int8(), nullable=False),
        pa.field("gold", pa.int8(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("reflections", pa.int32(), nullable=False),
        pa.field("seconds", pa.float32(), nullable=False),
        pa.field("weights", pa.string(), nullable=False),
    ]
)
"""Columns of predictions.parquet."""

FIGURE_COLUMNS = (
    "model",
    "set",
    "row",
    "item",
    "cluster",
    "category",
    "source",
    "order",
    "sample",
    "temperature",
    "verdict",
    "log_odds",
    "released",
    "gold",
    "tokens",
    "truncated",
    "reflections",
    "seconds",
)
"""What the figures need: everything but the texts."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer of one model.

    Attributes:
        model: base, sft or rl.
        set: HELDOUT, or the name of an evaluation set.
        row: position of the row in its set; ids of user data may repeat.
        row_id: the row's id.
        item: what the row's pair belongs to: a benchmark's own id, else the row's id.
        cluster: position of the first row that hangs together with this one, see `clusters`.
        category: the benchmark's category or path of the image, else empty.
        source: where the row came from.
        order: one of ORDERS.
        sample: GREEDY, or the number of the vote from 1.
        temperature: at which it was sampled; 0 is greedy.
        response: the text without its end token.
        verdict: 1 or 2; None when the response has none.
        log_odds: ln P("1") − ln P("2") where the verdict stands, at `temperature`, that of
            greedy answers being 1: times the temperature it is the model's own. None without a
            verdict, or where it is no token of its own.
        released: 1 or 2, what the released benchmark scripts make of the response.
        gold: the number of the better answer in this order.
        tokens: of the response, its end token included.
        truncated: cut at the longest answer allowed.
        reflections: phrases in which the response goes back on itself.
        seconds: the time in which the row's chunk was judged, over the answers in it.
        weights: version of the weights that answered.
    """

    model: str
    set: str
    row: int
    row_id: str
    item: str
    cluster: int
    category: str
    source: str
    order: str
    sample: int
    temperature: float
    response: str
    verdict: int | None
    log_odds: float | None
    released: int
    gold: int
    tokens: int
    truncated: bool
    reflections: int
    weights: str
    seconds: float = 0.0

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
    """One model's verdicts on one set as arrays, rows by their position.

    Attributes:
        items: [rows].
        clusters: [rows], int64; rows of one hang together.
        categories: [rows].
        sources: [rows].
        gold: [rows], int8, the better answer as the row gives it.
        drawn: [rows, 2, samples], axis 1 as ORDERS; whether there is such an answer: votes that
            could not change a majority are not asked for.
        verdicts: [rows, 2, samples], int8; 0 where there is no verdict.
        log_odds: [rows, 2, samples], of 1 against 2 as numbered in the order, at temperature 1
            in votes, too; NaN where there are none.
        released: [rows, 2], int8, of the greedy answers.
        tokens: [rows, 2, samples], int32.
        truncated: [rows, 2, samples], bool.
        reflections: [rows, 2, samples], int32.
        seconds: [rows, 2, samples].
    """

    items: tuple[str, ...]
    clusters: NDArray[np.int64]
    categories: tuple[str, ...]
    sources: tuple[str, ...]
    gold: NDArray[np.int8]
    drawn: NDArray[np.bool_]
    verdicts: NDArray[np.int8]
    log_odds: NDArray[np.float64]
    released: NDArray[np.int8]
    tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    reflections: NDArray[np.int32]
    seconds: NDArray[np.float64]

    @property
    def gold_by_order(self) -> NDArray[np.int8]:
        """[rows, 2]: the number of the better answer in each order."""
        return np.stack([self.gold, 3 - self.gold], axis=1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """[rows, 2, samples]: the verdict is the better answer."""
        return self.verdicts == self.gold_by_order[:, :, None]


def judgements(table: pa.Table, model: str, set_name: str = HELDOUT) -> Judgements:
    """One model's predictions on one set as arrays.

    Args:
        table: with at least FIGURE_COLUMNS.
        model: whose.
        set_name: on what.

    Raises:
        ValueError: unless every row has both orders, each with a greedy answer and its votes
            numbered without a gap, once.
    """
    own = table.filter((pc.field("model") == model) & (pc.field("set") == set_name))
    rows, first, row = np.unique(own["row"].to_numpy(), return_index=True, return_inverse=True)
    order = (own["order"].to_numpy() == ORDERS[1]).astype(np.int64)
    sample = own["sample"].to_numpy()
    shape = (len(rows), len(ORDERS), int(sample.max(initial=GREEDY)) + 1)
    seen = np.zeros(shape, dtype=np.int64)
    np.add.at(seen, (row, order, sample), 1)
    gaps = np.diff(seen, axis=2) > 0
    if not len(rows) or seen.max() > 1 or not seen[:, :, GREEDY].all() or gaps.any():
        raise ValueError(
            f"predictions of {model} on {set_name}: {len(own)} answers are not {len(rows)} rows "
            "in both orders, each with a greedy answer and its votes in a row"
        )

    def spread(name: str, dtype: type[np.generic], missing: float = 0) -> NDArray[Any]:
        values = np.full(shape, missing, dtype=dtype)
        column = own[name].fill_null(missing) if own[name].null_count else own[name]
        values[row, order, sample] = column.to_numpy()
        return values

    gold = own["gold"].to_numpy()
    temperature = spread("temperature", np.float64)
    sampled_at = np.where(temperature > 0, temperature, 1)  # servers divide greedy ones by 1
    return Judgements(
        items=tuple(own["item"].take(first).to_pylist()),
        clusters=own["cluster"].to_numpy()[first].astype(np.int64),
        categories=tuple(own["category"].take(first).to_pylist()),
        sources=tuple(own["source"].take(first).to_pylist()),
        gold=np.where(order == 0, gold, 3 - gold).astype(np.int8)[first],
        drawn=seen == 1,
        verdicts=spread("verdict", np.int8),
        log_odds=spread("log_odds", np.float64, math.nan) * sampled_at,
        released=spread("released", np.int8)[:, :, GREEDY],
        tokens=spread("tokens", np.int32),
        truncated=spread("truncated", np.bool_),
        reflections=spread("reflections", np.int32),
        seconds=spread("seconds", np.float64),
    )
