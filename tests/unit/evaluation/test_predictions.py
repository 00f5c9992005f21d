# SPDX-License-Identifier: Apache-2.0
"""The table of predictions and its form as arrays."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from r1reward_trainer.evaluation.calibrated import write_calibrated
from r1reward_trainer.evaluation.figures import Rules, compute
from r1reward_trainer.evaluation.predictions import HELDOUT, SCHEMA, judgements, to_table
from r1reward_trainer.evaluation.sets import clusters, evaluation_set
from tests.unit.evaluation.builders import predictions, right, rows, table
from tests.unit.evaluation.reports import MODELS, three_models


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


def test_the_calibrated_probability_is_a_column_that_the_brier_score_follows_from(tmp_path):
    given = rows(30)
    heldout = evaluation_set(HELDOUT, None, given, range(30))
    said = three_models(given)
    pq.write_table(said, tmp_path / "judged.parquet")
    out = tmp_path / "predictions" / "predictions.parquet"
    write_calibrated(tmp_path / "judged.parquet", out, MODELS, [heldout])
    found = pq.read_table(out)
    assert found.drop_columns(["probability"]).equals(said)
    brier = {}
    for p in found.to_pylist():
        first_is_better = p["gold"] == (1 if p["order"] == "Given" else 2)
        better = p["probability"] if first_is_better else 1 - p["probability"]
        brier.setdefault(p["model"], {})[p["row"]] = (1 - better) ** 2
    figures = compute(said, MODELS, Rules((1,), 100, 0))
    for model in MODELS:
        calibration = figures.models[model].calibration
        assert calibration
        assert calibration.brier.value == pytest.approx(sum(brier[model].values()) / 30)


def test_rows_that_are_a_part_of_the_held_out_ones_keep_their_own_probability(tmp_path):
    given = rows(9)
    chosen = [1, 4, 8]
    said = [p for p in predictions(given, lambda *_: 1) if p.row in chosen]
    said = [replace(p, log_odds=float(p.row) * (1 if p.order == "Given" else -1)) for p in said]
    pq.write_table(to_table(said), tmp_path / "judged.parquet")
    out = tmp_path / "out" / "p.parquet"
    write_calibrated(
        tmp_path / "judged.parquet", out, ["rl"], [evaluation_set(HELDOUT, None, given, chosen)]
    )
    by_row = {p["row"]: p["probability"] for p in pq.read_table(out).to_pylist()}
    assert 0.5 < by_row[1] < by_row[4]
    silent = [replace(p, log_odds=None) for p in said]
    pq.write_table(to_table(silent), tmp_path / "silent.parquet")
    write_calibrated(
        tmp_path / "silent.parquet",
        tmp_path / "none" / "p.parquet",
        ["rl"],
        [evaluation_set(HELDOUT, None, given, chosen)],
    )
    assert pq.read_table(tmp_path / "none/p.parquet")["probability"].null_count == len(said)


def test_rows_that_share_an_image_or_an_item_hang_together_and_so_on_from_those():
    given = [replace(r, images=(bytes([n]),)) for n, r in enumerate(rows(7))]
    given[4] = replace(given[4], images=(bytes([1]), bytes([9])))
    given[5] = replace(given[5], images=(bytes([9]),))
    given[6] = replace(given[6], id=given[0].id)
    assert clusters(given, range(7)) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 1, 5: 1, 6: 0}
    assert clusters(given, [4, 5, 6]) == {4: 4, 5: 4, 6: 6}
    assert clusters([replace(r, images=()) for r in given[:2]], [0, 1]) == {0: 0, 1: 1}
