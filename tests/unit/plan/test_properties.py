# SPDX-License-Identifier: Apache-2.0
"""What holds whatever happens: the cluster does anything at any time, the plan keeps its rules."""

from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from r1reward_api.constants import Stage
from r1reward_api.wire.termination import FailureClass
from r1reward_operator.observed import attempt_of
from tests.unit.plan.simulation import Simulation, example_spec

HOLDING = ("Starting", "Running")


class AnyCluster(RuleBasedStateMachine):
    """One job in a cluster that starts, ends, loses and deletes things in any order."""

    def __init__(self) -> None:
        super().__init__()
        policy = {"backoffLimit": 3, "infrastructureLimit": 3, "startDeadlineSeconds": 600}
        self.cluster = Simulation(example_spec(annotate=None, sft=None, policy=policy))
        self.cluster.spec["rl"]["rows"] = "All"
        self.cluster.tick()
        self.attempts: dict[str, int] = {}

    def over(self) -> bool:
        return self.cluster.status["phase"] in ("Succeeded", "Failed")

    def current(self) -> Stage:
        return Stage(self.cluster.status["stage"])

    def has_worker(self) -> bool:
        return self.cluster.worker() is not None

    def has_pods(self) -> bool:
        worker = self.cluster.worker()
        return worker is not None and any(
            p["metadata"]["ownerReferences"][0]["uid"] == worker["metadata"]["uid"]
            for p in self.cluster.pods.values()
        )

    @rule(seconds=st.sampled_from([1, 15, 61, 700]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.tick(seconds)

    @rule()
    def servers_get_ready(self) -> None:
        self.cluster.serve()

    @precondition(lambda self: self.has_worker() and not self.has_pods())
    @rule()
    def pods_run(self) -> None:
        self.cluster.run()

    @precondition(lambda self: self.has_pods())
    @rule()
    def the_worker_succeeds(self) -> None:
        self.cluster.succeed(self.current())

    @precondition(lambda self: self.has_pods())
    @rule(failure_class=st.sampled_from(FailureClass))
    def the_worker_fails(self, failure_class: FailureClass) -> None:
        self.cluster.fail(self.current(), failure_class)

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data())
    def a_pod_vanishes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.cluster.pods)))
        del self.cluster.pods[name]
        self.cluster.tick()

    @precondition(lambda self: self.cluster.children)
    @rule(data=st.data())
    def somebody_deletes_a_child(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.cluster.children)))
        del self.cluster.children[key]
        self.cluster.tick()

    @rule()
    def garbage_is_collected(self) -> None:
        self.cluster.collect()

    @rule(suspend=st.booleans())
    def the_user_suspends_or_resumes(self, suspend: bool) -> None:
        self.cluster.spec["suspend"] = suspend
        self.cluster.tick()

    @precondition(lambda self: self.has_pods())
    @rule(data=st.data())
    def an_image_cannot_be_pulled(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.cluster.pods)))
        waiting = {"waiting": {"reason": "ImagePullBackOff"}}
        self.cluster.pods[name]["status"] = {
            "phase": "Pending", "containerStatuses": [{"name": "r1", "state": waiting}],
        }  # fmt: skip
        self.cluster.tick()

    @rule(version=st.integers(1, 3))
    def the_platform_team_changes_the_runtime(self, version: int) -> None:
        images = {**self.cluster.runtime["images"], "trainer": f"r1/trainer:v{version}"}
        self.cluster.runtime = {**self.cluster.runtime, "images": images}
        self.cluster.tick()

    @precondition(lambda self: self.cluster.status["phase"] == "Failed")
    @rule()
    def the_user_runs_it_again(self) -> None:
        self.cluster.spec["rerun"] = self.cluster.spec.get("rerun", 0) + 1
        self.cluster.tick()

    @rule(seconds=st.sampled_from([0, 15, 700]), writes=st.integers(0, 4))
    def the_operator_ends_between_two_writes(self, seconds: int, writes: int) -> None:
        self.cluster.now += timedelta(seconds=seconds)
        self.cluster.carry_out(self.cluster.plan(), writes)
        self.cluster.tick()

    @invariant()
    def the_same_observation_gives_the_same_plan(self) -> None:
        assert self.cluster.plan() == self.cluster.plan()

    @invariant()
    def what_was_carried_out_is_not_done_again(self) -> None:
        wanted = self.cluster.plan()
        assert wanted.deletions == ()
        assert wanted.tokens == ()
        assert wanted.status == self.cluster.status
        assert not self.cluster.carry_out(wanted)

    @invariant()
    def no_attempt_comes_twice(self) -> None:
        for stage in self.cluster.status["stages"]:
            assert stage["attempt"] >= self.attempts.get(stage["name"], 0)
            self.attempts[stage["name"]] = stage["attempt"]
        assert len(self.cluster.tokens) == len(set(self.cluster.tokens))

    @invariant()
    def only_a_running_attempt_holds_servers(self) -> None:
        stages = {s["name"]: s for s in self.cluster.status["stages"]}
        for (kind, _), child in self.cluster.children.items():
            if kind in ("Deployment", "Service", "ConfigMap", "NetworkPolicy"):
                name, attempt = attempt_of(child) or ("", 0)
                assert stages[name]["phase"] in HOLDING
                assert stages[name]["attempt"] == attempt

    @invariant()
    def a_suspended_job_holds_nothing(self) -> None:
        if self.cluster.spec.get("suspend") and not self.over():
            assert self.cluster.worker() is None
            assert self.cluster.names("Deployment") == []

    @invariant()
    def kstatus_can_read_it(self) -> None:
        found = {c["type"]: c["status"] for c in self.cluster.status["conditions"]}
        assert (found["Reconciling"] == "False") == self.over()
        assert found["Ready"] == found["Succeeded"]
        assert found["Stalled"] == found["Failed"]


AnyCluster.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_the_plan_keeps_its_rules_in_any_cluster = AnyCluster.TestCase
