# SPDX-License-Identifier: Apache-2.0
"""GatesPassed: the condition on which a pipeline waits."""

from typing import Any

import pytest

from r1reward_api import gates
from r1reward_api.constants import Stage
from tests.unit.plan.simulation import Simulation, example_spec

GATES = {"gates": [{"metric": "Accuracy", "minimum": 0.8}]}


def told(simulation: Simulation) -> tuple[str, str, str]:
    found = simulation.condition("GatesPassed")
    return found["status"], found["reason"], found["message"]


def evaluated(summary: dict[str, str], evaluate: dict[str, Any] = GATES) -> Simulation:
    simulation = Simulation(example_spec(evaluate=evaluate))
    simulation.walk_to(Stage.EVALUATE)
    simulation.run()
    simulation.succeed(Stage.EVALUATE, summary=summary)
    return simulation


def test_before_the_evaluation_it_is_unknown() -> None:
    simulation = Simulation(example_spec(evaluate=GATES))
    simulation.tick()
    assert told(simulation) == ("Unknown", "Pending", "not evaluated yet")


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([], ("True", "GatesMet", "the evaluated weights reach all of evaluate.gates")),
        (["Accuracy 0.7 is below 0.8"], ("False", "GatesNotMet", "Accuracy 0.7 is below 0.8")),
    ],
)
def test_it_says_what_the_evaluation_found_and_the_job_succeeds_either_way(
    failures: list[str], expected: tuple[str, str, str]
) -> None:
    simulation = evaluated({"accuracy": "0.7", gates.KEY: gates.told(failures)})
    assert told(simulation) == expected
    assert simulation.condition("Succeeded")["status"] == "True"
    since = simulation.condition("GatesPassed")["lastTransitionTime"]
    simulation.tick(60)
    assert told(simulation) == expected
    assert simulation.condition("GatesPassed")["lastTransitionTime"] == since


def test_a_job_without_gates_has_no_such_condition() -> None:
    simulation = evaluated({"accuracy": "0.7"}, {})
    assert "GatesPassed" not in {c["type"] for c in simulation.status["conditions"]}


def test_a_long_list_of_failures_is_cut_to_what_a_status_holds() -> None:
    text = gates.told([f"Accuracy 0.{i} is below 0.9" for i in range(16)])
    assert len(text) == 253
    assert gates.read({gates.KEY: text}) == (False, text.removeprefix("failed: "))
