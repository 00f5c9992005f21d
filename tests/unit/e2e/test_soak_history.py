# SPDX-License-Identifier: Apache-2.0
from typing import Any

from tests.e2e.soak.history import History, Loss, look

SFT = "stages/sft/k/runs/u/checkpoints"


def stage(**fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "sft", "phase": "Running", "attempt": 1, **fields}]}


def lost(number: int, reason: str = "PodLost") -> dict[str, Any]:
    return stage(infrastructureFailures=number, reason=reason, message=f"pod {number} vanished")


def test_a_lost_attempt_is_recorded_once_with_its_reason_and_the_time_around_it():
    seen = look(History(), stage(), {}, 10.0)
    seen = look(seen, lost(1), {}, 12.0)
    seen = look(seen, lost(1), {}, 14.0)
    assert seen.losses == (
        Loss("sft", 1, "Infrastructure", "PodLost", "pod 1 vanished", since=10.0, at=12.0),
    )


def test_of_two_losses_between_two_looks_only_the_last_has_a_reason():
    seen = look(History(), lost(2), {}, 5.0)
    assert [(loss.number, loss.reason) for loss in seen.losses] == [(1, None), (2, "PodLost")]


def test_a_failure_that_no_counter_counts_is_a_configuration_error():
    status = stage(phase="Failed", reason="InvalidData", message="no rows")
    seen = look(look(History(), status, {}, 1.0), status, {}, 2.0)
    assert [(loss.failure_class, loss.reason) for loss in seen.losses] == [
        ("Configuration", "InvalidData")
    ]


def test_a_failure_that_exceeds_its_limit_is_counted_once():
    failed = stage(phase="Failed", programFailures=1, reason="OOMKilled", message="too much")
    seen = look(look(History(), failed, {}, 1.0), failed, {}, 2.0)
    assert [loss.failure_class for loss in seen.losses] == ["Program"]


def test_steps_that_only_grow_are_no_problem():
    seen = History()
    for at, step in enumerate((0, 10, 10, 20)):
        seen = look(seen, stage(), {SFT: step}, float(at))
    assert (seen.problems, seen.pointers) == ((), {SFT: 20})


def test_a_pointer_that_goes_back_or_away_has_lost_a_committed_step():
    seen = look(History(), stage(), {SFT: 20}, 1.0)
    assert look(seen, stage(), {SFT: 10}, 2.0).problems == (
        f"the checkpoints in {SFT} went from step 20 back to 10",
    )
    assert look(seen, stage(), {}, 2.0).problems == (
        f"the checkpoint pointer in {SFT} is gone; it was at step 20",
    )


def test_without_an_answer_of_storage_nothing_is_concluded():
    seen = look(History(), stage(), {SFT: 20}, 1.0)
    assert look(seen, stage(), None, 2.0).problems == ()


def test_a_status_that_goes_back_or_says_more_than_storage_is_a_problem():
    def reporting(step: int) -> dict[str, Any]:
        return {**stage(), "checkpoint": {"stage": "sft", "step": step, "uri": "s3://b/c"}}

    seen = look(History(), reporting(20), {SFT: 20}, 1.0)
    assert seen.problems == ()
    assert look(seen, reporting(10), {SFT: 20}, 2.0).problems == (
        "status.checkpoint of sft went from step 20 back to 10",
    )
    assert look(seen, reporting(30), {SFT: 20}, 2.0).problems == (
        "status.checkpoint says step 30 of sft, storage has 20",
    )
