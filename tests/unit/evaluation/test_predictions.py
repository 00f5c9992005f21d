# SPDX-License-Identifier: Apache-2.0
"""The table of predictions and its form as arrays."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from r1reward_trainer.evaluation.predictions import SCHEMA, judgements, to_table
from tests.unit.evaluation.builders import predictions, right, rows, table


def test_predictions_survive_parquet_as_they_were(tmp_path):
    said = predictions(rows(3), lambda i, *_: None if i == 1 else 2, votes=1)
    written = to_table(said)
    pq.write_table(written, tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet") == written
    assert written.schema == SCHEMA
    assert [r["correct"] for r in written.to_pylist()] == [p.verdict == p.gold for p in said]


def test_gold_is_that_of_the_row_whatever_order_comes_first():
    given = rows(4)
    said = predictions(given, right(given))
    arrays = judgements(to_table(reversed(said)), "rl")
    assert arrays.gold.tolist() == [r.gold for r in given]
    assert arrays.items == tuple(r.id for r in given)
    assert arrays.correct.all()


def test_rows_with_the_same_id_are_told_apart_by_position():
    given = [replace(r, id="same") for r in rows(3)]
    assert judgements(to_table(predictions(given, right(given))), "rl").correct.shape == (3, 2, 1)


def test_each_model_has_its_own_answers():
    given = rows(5)
    both = table(predictions(given, lambda *_: 1, model="base"), predictions(given, right(given)))
    assert judgements(both, "base").correct.mean() == 0.5
    assert judgements(both, "rl").correct.mean() == 1


@pytest.mark.parametrize(
    "spoil",
    [lambda p: p[1:], lambda p: p[:1] + p[2:], lambda p: [*p, p[0]], lambda p: []],
    ids=["no greedy answer", "a vote is missing between two", "twice", "none"],
)
def test_incomplete_predictions_give_no_figures(spoil):
    whole = predictions(rows(3), lambda *_: 1, votes=2)
    with pytest.raises(
        ValueError, match=r"predictions of rl on heldout: .* are not .* rows in both orders"
    ):
        judgements(to_table(spoil(whole)), "rl")


def test_votes_that_were_not_asked_for_are_told_from_those_without_a_verdict():
    whole = predictions(rows(2), lambda *_: None, votes=2)
    arrays = judgements(to_table(p for p in whole if p.row == 0 or p.sample < 2), "rl")
    assert arrays.drawn.sum(axis=2).tolist() == [[3, 3], [2, 2]]
    assert not arrays.verdicts.any()


def test_each_set_has_its_own_answers():
    given = rows(2)
    both = table(predictions(given, right(given)), predictions(rows(5), lambda *_: 1, of="vl"))
    assert judgements(both, "rl").correct.shape == (2, 2, 1)
    assert judgements(both, "rl", "vl").correct.mean() == 0.5
