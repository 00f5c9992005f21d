# SPDX-License-Identifier: Apache-2.0
"""Gates: what the last weights must reach before a pipeline may take them."""

import pytest

from r1reward_api import gates as in_summary
from r1reward_api.resource.job import Gate
from r1reward_trainer.evaluation import figures
from r1reward_trainer.evaluation.gates import failures, judge_gates
from r1reward_trainer.evaluation.predictions import gold_in_order
from tests.unit.evaluation.builders import Says, judged, predictions, right, rows, table

ROWS = rows(200)


def first(count: int) -> Says:
    """Right in the first rows, wrong in both orders of all others."""

    def says(position: int, order: str, _: int) -> int:
        gold = gold_in_order(ROWS[position].gold, order)
        return gold if position < count else 3 - gold

    return says


def judge(gate: Gate, *counts: int) -> list[str]:
    names = ("base", "sft", "rl")[-len(counts) :]
    models = {name: judged(ROWS, first(n)) for name, n in zip(names, counts, strict=True)}
    return failures(judge_gates([gate], models, 500, 0))


def test_a_minimum_is_met_at_the_very_figure() -> None:
    assert judge(Gate(metric="Accuracy", minimum=0.8), 160) == []
    assert judge(Gate(metric="Accuracy", minimum=0.8), 159) == ["Accuracy 0.795 is below 0.8"]


def test_worse_by_chance_is_not_worse_and_worse_with_significance_is() -> None:
    gate = Gate(metric="Accuracy", not_worse_than="SFT")
    assert judge(gate, 160, 165) == []
    # One row of 200 is within what resampling gives; forty are not.
    assert judge(gate, 160, 159) == []
    (failure,) = judge(gate, 160, 120)
    assert failure.startswith("Accuracy 0.600 is worse than that of sft by 0.200 [")


def test_another_model_that_judged_the_same_rows_can_be_what_is_not_to_be_worse_than() -> None:
    gate = Gate(metric="Accuracy", not_worse_than="production")
    judges = {"production": 161, "base": 100}
    for good, failed in ((160, False), (120, True)):
        models = {n: judged(ROWS, first(k)) for n, k in (judges | {"rl": good}).items()}
        (found,) = judge_gates([gate], models, 500, 0)
        assert found.asked == "not worse than production"
        assert (found.failure is not None) == failed


def test_only_the_last_weights_are_judged() -> None:
    assert judge(Gate(metric="BothRight", minimum=0.9), 10, 20, 190) == []


def test_a_judge_of_one_place_fails_the_gate_on_agreement() -> None:
    constant = {"rl": judged(ROWS, lambda *_: 1)}
    gates = [
        Gate(metric="OrderAgreement", minimum=0.5),
        Gate(metric="ValidRate", minimum=1),
        Gate(metric="Accuracy", minimum=0.5),
    ]
    found = judge_gates(gates, constant, 100, 0)
    assert [(f.metric, f.value, f.failure is None) for f in found] == [
        ("OrderAgreement", 0.0, False),
        ("ValidRate", 1.0, True),
        ("Accuracy", 0.5, True),
    ]


def test_a_baseline_that_was_not_evaluated_is_named() -> None:
    with pytest.raises(ValueError, match=r"notWorseThan Base was not evaluated before rl"):
        judge(Gate(metric="Accuracy", not_worse_than="Base"), 10)


def test_the_summary_says_what_became_of_the_gates_and_only_where_there_are_any() -> None:
    said = table(predictions(ROWS, right(ROWS)))
    gate = Gate(metric="Accuracy", minimum=0.5)
    told = [
        in_summary.read(figures.summary(figures.compute(said, ["rl"], rules)))
        for rules in (
            figures.Rules((1,), 100, 0),
            figures.Rules((1,), 100, 0, (gate,)),
        )
    ]
    assert told == [None, (True, "passed")]
    wrong = table(predictions(ROWS, first(0)))
    found = figures.compute(wrong, ["rl"], figures.Rules((1,), 100, 0, (gate,)))
    assert in_summary.read(figures.summary(found)) == (False, "Accuracy 0.000 is below 0.5")
