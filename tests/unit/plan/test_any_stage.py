# SPDX-License-Identifier: Apache-2.0
"""What users do to a job, in any stage and in any phase of it."""

from collections.abc import Callable

import pytest

from r1reward_api.constants import Stage
from r1reward_api.wire.termination import CachedStage, FailureClass, Termination
from r1reward_operator.plan import Plan, Settings, plan
from tests.unit.plan.simulation import Simulation, at_work, outputs, starting


def retrying(stage: Stage) -> Simulation:
    """A job whose stage waits to try again."""
    simulation = at_work(stage)
    simulation.fail(stage, FailureClass.PROGRAM)
    return simulation


PHASES: dict[str, Callable[[Stage], Simulation]] = {
    "Starting": starting,
    "Running": at_work,
    "Retrying": retrying,
}
anywhere = pytest.mark.parametrize(
    ("stage", "phase"), [(s, p) for s in Stage for p in PHASES], ids=str
)


@anywhere
def test_suspend_frees_all_and_resume_goes_on_as_an_attempt_that_costs_nothing(
    stage: Stage, phase: str
):
    simulation = PHASES[phase](stage)
    before = simulation.stage(stage)
    assert (before["phase"], before["attempt"]) == (phase, 1)
    simulation.spec["suspend"] = True
    simulation.tick()
    assert simulation.stage(stage)["phase"] == "Suspended"
    assert simulation.condition("Suspended")["status"] == "True"
    held = simulation.names("Deployment", "Service", "ConfigMap", "NetworkPolicy")
    assert (held, simulation.worker()) == ([], None)

    # What its pods say while they end by our doing is nobody's fault.
    told = Termination(stage=stage, attempt=1, outcome="Interrupted")
    for pod in [n for n in simulation.pods if n.startswith(f"vlm-{stage}-1-")]:
        simulation.end(pod, 143, told)
    simulation.tick(86_400)
    assert simulation.last.requeue_after is None, "a suspended job is not looked at by the clock"
    simulation.spec["suspend"] = False
    simulation.tick()
    simulation.collect()
    after = simulation.stage(stage)
    assert (after["phase"], after["attempt"]) == ("Starting", 2)
    counts = ("programFailures", "infrastructureFailures")
    assert [after[c] for c in counts] == [before[c] for c in counts]
    simulation.serve()
    simulation.run()
    assert before.get("key") in (None, simulation.stage(stage).get("key"))
    simulation.succeed(stage)
    assert simulation.stage(stage)["phase"] == "Succeeded"


@anywhere
def test_a_deleted_job_is_left_to_the_garbage_collector_which_finds_all_its_children(
    stage: Stage, phase: str
):
    simulation = PHASES[phase](stage)
    for child in simulation.children.values():
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == ("job-uid", True)
        assert "finalizers" not in child["metadata"]
    observed = simulation.observed()
    observed.job["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"  # type: ignore[index]
    assert plan(observed, simulation.now, Settings()) == Plan()


@pytest.mark.parametrize("stage", Stage)
def test_rerun_takes_what_is_computed_and_tries_the_failed_stage_again(stage: Stage):
    simulation = at_work(stage)
    simulation.fail(stage, FailureClass.CONFIGURATION, "StorageDenied")
    assert simulation.condition("Failed")["status"] == "True"
    computed = {s: simulation.stage(s)["key"] for s in list(Stage)[: list(Stage).index(stage)]}
    simulation.spec["rerun"] = 1
    simulation.tick()
    simulation.collect()
    assert simulation.condition("Failed")["status"] == "False"
    if stage is Stage.PREPARE:
        assert simulation.stage(stage)["attempt"] == 2
        return
    simulation.run()
    cached = [
        CachedStage(stage=s, key=key, run="runs/job-uid/attempt-1", outputs=outputs(s))
        for s, key in computed.items()
        if s is not Stage.PREPARE
    ]
    simulation.succeed(Stage.PREPARE, cached=cached)
    taken = [s.value for s in Stage if simulation.stage(s)["cacheHit"]]
    assert taken == [c.stage.value for c in cached]
    found = simulation.stage(stage)
    assert (found["phase"], found["attempt"]) == ("Starting", 2)


@pytest.mark.parametrize("stage", Stage)
def test_rerun_of_a_job_at_work_changes_nothing_then_or_later(stage: Stage):
    simulation = at_work(stage)
    simulation.spec["rerun"] = 1
    simulation.tick()
    assert simulation.stage(stage)["phase"] == "Running"
    simulation.fail(stage, FailureClass.CONFIGURATION, "StorageDenied")
    simulation.tick(3600)
    assert simulation.condition("Failed")["status"] == "True"


@pytest.mark.parametrize("stage", Stage)
def test_rerun_of_a_failed_job_that_is_suspended_starts_when_it_is_resumed_and_not_before(
    stage: Stage,
):
    simulation = at_work(stage)
    simulation.fail(stage, FailureClass.CONFIGURATION, "StorageDenied")
    simulation.spec |= {"rerun": 1, "suspend": True}
    simulation.tick(3600)
    simulation.collect()
    assert simulation.condition("Failed")["status"] == "False"
    assert simulation.condition("Suspended")["status"] == "True"
    held = simulation.names("Deployment", "Service", "Job", "PyTorchJob", "ConfigMap")
    assert held == []
    simulation.spec["suspend"] = False
    simulation.tick()
    prepare = simulation.stage(Stage.PREPARE)
    assert (prepare["phase"], prepare["attempt"]) == ("Starting", 2)
    counts = [simulation.stage(s)["programFailures"] for s in Stage]
    assert counts == [0] * len(counts)


@pytest.mark.parametrize("stage", Stage)
def test_a_failed_job_that_is_suspended_and_resumed_stays_failed(stage: Stage):
    simulation = at_work(stage)
    simulation.fail(stage, FailureClass.CONFIGURATION, "StorageDenied")
    failed = simulation.condition("Failed")
    for suspend in (True, False):
        simulation.spec["suspend"] = suspend
        simulation.tick(60)
        assert simulation.condition("Failed") == failed
        assert simulation.status["phase"] == "Failed"
        assert simulation.condition("Suspended")["status"] == "False"
