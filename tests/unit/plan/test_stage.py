# SPDX-License-Identifier: Apache-2.0
"""The life of a stage, one sentence a rule."""

from dataclasses import replace
from datetime import timedelta

import pytest

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.progress import Progress
from r1reward_api.wire.termination import CachedStage, FailureClass, Termination
from r1reward_operator.plan import Blocked, Obstacle, Plan, Settings, plan
from tests.unit.plan.simulation import SETTINGS, Simulation, example_spec, outputs, starting

SERVERS = ["vlm-rl-1-judge", "vlm-rl-1-rollout", "vlm-rl-1-verifier"]


def at_rl(**changes: object) -> Simulation:
    """A job whose rl servers are ready and whose trainer runs."""
    simulation = Simulation(example_spec(**changes))
    simulation.walk_to(Stage.RL)
    simulation.run()
    assert simulation.stage(Stage.RL)["phase"] == "Running"
    return simulation


def test_an_attempt_is_written_down_before_anything_is_made_for_it():
    simulation = Simulation()
    first = simulation.plan()
    assert (first.objects, first.tokens, first.deletions) == ((), (), ())
    assert first.status is not None
    assert first.status["stages"][0] == {
        "name": "prepare",
        "phase": "Starting",
        "attempt": 1,
        "programFailures": 0,
        "infrastructureFailures": 0,
        "cacheHit": False,
        "startTime": "2026-01-02T03:04:05Z",
        "attemptTime": "2026-01-02T03:04:05Z",
        "children": [],
        "pods": {},
        "outputs": {},
    }


def test_an_attempt_is_frozen_before_its_children_are_made():
    simulation = Simulation()
    simulation.carry_out(simulation.plan())
    second = simulation.plan()
    assert [o["kind"] for o in second.objects] == ["ControllerRevision"]
    simulation.carry_out(second)
    assert [o["kind"] for o in simulation.plan().objects] == ["NetworkPolicy", "ConfigMap", "Job"]


def test_the_trainer_is_made_only_when_all_servers_are_ready():
    simulation = Simulation()
    simulation.walk_to(Stage.SFT)
    simulation.run()
    simulation.succeed(Stage.SFT)
    assert simulation.names("Deployment") == SERVERS
    assert simulation.tokens == ["vlm-rl-1-token-job-uid"]
    assert "vlm-rl-1" not in simulation.names("PyTorchJob")
    simulation.serve()
    assert "vlm-rl-1" in simulation.names("PyTorchJob")


def test_servers_go_as_soon_as_their_stage_ends_and_the_trainer_stays_for_its_logs():
    simulation = at_rl()
    simulation.succeed(Stage.RL)
    assert simulation.names("Deployment", "Service") == ["vlm-evaluate-1-rollout"] * 2
    assert simulation.names("PyTorchJob") == ["vlm-rl-1", "vlm-sft-1"]


def test_a_finished_job_holds_no_service_configuration_or_revision():
    simulation = Simulation()
    simulation.walk_to(Stage.EVALUATE)
    simulation.run()
    simulation.succeed(Stage.EVALUATE, summary={"accuracy": "0.91"})
    assert {k for k, _ in simulation.children} == {"Job", "PyTorchJob"}
    assert simulation.condition("Succeeded")["reason"] == "Completed"
    assert simulation.status["summary"] == {"accuracy": "0.91"}
    assert simulation.last.requeue_after is None


def test_an_output_lies_where_the_run_that_computed_it_put_it():
    simulation = Simulation()
    simulation.walk_to(Stage.ANNOTATE)
    assert simulation.stage(Stage.PREPARE)["outputs"]["model"] == {
        "uri": "s3://reward-models/team-a/team-a/stages/prepare/prepared/"
        "runs/job-uid/attempt-1/model",
        "digest": "sha256:prepare-model",
        "bytes": 10,
    }


def test_a_stage_that_prepare_found_computed_runs_no_pod():
    plain = Simulation()
    plain.walk_to(Stage.SFT)
    key = plain.stage(Stage.ANNOTATE)["key"]
    simulation = Simulation()
    simulation.tick()
    simulation.run()
    entry = CachedStage(
        stage=Stage.ANNOTATE, key=key, run="runs/other/attempt-2",
        outputs=outputs(Stage.ANNOTATE), summary={"accepted": "12"},
    )  # fmt: skip
    simulation.succeed(Stage.PREPARE, cached=[entry])
    annotate = simulation.stage(Stage.ANNOTATE)
    assert (annotate["phase"], annotate["cacheHit"], annotate["attempt"]) == ("Succeeded", True, 0)
    assert annotate["outputs"]["sft"]["uri"].endswith(f"{key}/runs/other/attempt-2/sft")
    assert simulation.status["summary"] == {"annotate.accepted": "12"}
    assert simulation.stage(Stage.SFT)["phase"] == "Starting"
    assert "vlm-annotate-1" not in simulation.names()


def test_a_cached_result_under_another_key_is_not_taken():
    simulation = Simulation()
    simulation.tick()
    simulation.run()
    entry = CachedStage(stage=Stage.ANNOTATE, key="other", run="r", outputs=outputs(Stage.ANNOTATE))
    simulation.succeed(Stage.PREPARE, cached=[entry])
    assert simulation.stage(Stage.ANNOTATE)["phase"] == "Starting"


def test_a_program_failure_is_retried_after_a_backoff_that_grows_and_is_counted():
    simulation = Simulation(example_spec(policy={"backoffLimit": 2}))
    simulation.tick()
    waits = []
    for attempt in (1, 2):
        simulation.run()
        simulation.fail(Stage.PREPARE, FailureClass.PROGRAM)
        stage = simulation.stage(Stage.PREPARE)
        assert (stage["phase"], stage["programFailures"]) == ("Retrying", attempt)
        assert stage["reason"] == "ProgramError"
        assert simulation.names("Job") == []
        simulation.collect()
        wait = simulation.last.requeue_after
        assert wait is not None
        waits.append(wait)
        simulation.tick(wait - 1)
        assert simulation.stage(Stage.PREPARE)["attempt"] == attempt
        simulation.tick(1)
        assert simulation.stage(Stage.PREPARE)["attempt"] == attempt + 1
    assert 5 <= waits[0] <= 10 <= waits[1] <= 20
    simulation.run()
    simulation.fail(Stage.PREPARE, FailureClass.PROGRAM, "NonFiniteLoss")
    assert simulation.stage(Stage.PREPARE)["phase"] == "Failed"
    assert simulation.condition("Failed")["reason"] == "ProgramError"
    assert (
        "after 3 failures (policy.backoffLimit): NonFiniteLoss: pod vlm-prepare-3-abcde"
        in (simulation.condition("Failed")["message"])
    )


def test_infrastructure_is_not_counted_towards_the_backoff_limit_but_has_one_of_its_own():
    policy = {"backoffLimit": 0, "infrastructureLimit": 1}
    simulation = Simulation(example_spec(policy=policy))
    simulation.tick()
    simulation.run()
    simulation.fail(Stage.PREPARE, FailureClass.INFRASTRUCTURE, "StorageUnavailable")
    simulation.collect()
    simulation.tick(300)
    stage = simulation.stage(Stage.PREPARE)
    assert (stage["attempt"], stage["programFailures"]) == (2, 0)
    simulation.run()
    simulation.fail(Stage.PREPARE, FailureClass.INFRASTRUCTURE)
    assert simulation.condition("Failed")["reason"] == "InfrastructureError"


def test_a_configuration_failure_is_final_at_once_and_says_how_to_start_again():
    simulation = Simulation()
    simulation.tick()
    simulation.run()
    simulation.fail(Stage.PREPARE, FailureClass.CONFIGURATION, "StorageDenied")
    failed = simulation.condition("Failed")
    assert failed["reason"] == "ConfigurationError"
    assert failed["message"] == (
        "stage prepare failed: StorageDenied: pod vlm-prepare-1-abcde: it went wrong; "
        "when that is mended, raise spec.rerun to start again"
    )
    assert simulation.condition("Stalled")["status"] == "True"
    assert simulation.condition("Reconciling")["status"] == "False"


def test_the_next_attempt_waits_until_the_last_ones_pods_are_gone():
    simulation = at_rl()
    simulation.fail(Stage.RL, FailureClass.PROGRAM)
    simulation.tick(3600)
    assert simulation.stage(Stage.RL)["attempt"] == 1
    simulation.collect()
    assert simulation.stage(Stage.RL)["attempt"] == 2
    assert simulation.tokens == ["vlm-rl-1-token-job-uid", "vlm-rl-2-token-job-uid"]


def test_the_next_stage_waits_for_the_gpus_of_servers_on_their_way_out():
    simulation = at_rl()
    deployment = simulation.children["Deployment", "vlm-rl-1-rollout"]
    server = simulation.make_pod("server", deployment, deployment["spec"]["template"], 0)
    simulation.pods[server]["status"] = {"phase": "Running"}
    simulation.succeed(Stage.RL)
    assert simulation.stage(Stage.RL)["phase"] == "Succeeded"
    assert simulation.names("Deployment") == []
    assert simulation.stage(Stage.EVALUATE)["phase"] == "Pending"
    simulation.collect()
    assert simulation.names("Deployment") == ["vlm-evaluate-1-rollout"]


def test_a_pod_on_a_node_that_does_not_answer_is_not_waited_for():
    simulation = at_rl()
    simulation.fail(Stage.RL, FailureClass.INFRASTRUCTURE)
    kept = "vlm-rl-1-worker-0"
    stuck = simulation.pods[kept]
    simulation.collect()
    stuck["metadata"]["deletionTimestamp"] = "2026-01-02T03:05:00Z"
    simulation.pods[kept] = stuck
    simulation.tick(60)
    assert simulation.stage(Stage.RL)["attempt"] == 1
    simulation.tick(200)
    assert simulation.stage(Stage.RL)["attempt"] == 2


def test_a_worker_that_does_not_start_in_time_lets_its_servers_go_first():
    simulation = Simulation(example_spec(policy={"startDeadlineSeconds": 600}))
    simulation.walk_to(Stage.RL)
    simulation.tick(599)
    assert simulation.stage(Stage.RL)["phase"] == "Starting"
    assert simulation.last.requeue_after == 1
    simulation.now = simulation.now.replace(second=(simulation.now.second + 1) % 60)
    wanted = simulation.plan()
    kinds = [d.kind for d in wanted.deletions]
    assert kinds[: len(SERVERS)] == ["Deployment"] * len(SERVERS)
    assert kinds.index("PyTorchJob") > kinds.index("Service")
    simulation.tick()
    stage = simulation.stage(Stage.RL)
    assert (stage["phase"], stage["reason"]) == ("Retrying", "StartDeadlineExceeded")
    assert (stage["programFailures"], stage["infrastructureFailures"]) == (0, 1)


def with_ended_init_container(code: int, message: str, role: str = "rollout") -> Simulation:
    """The model of a server could not be fetched, and the kubelet waits before it tries again."""
    simulation = starting(Stage.RL)
    deployment = simulation.children["Deployment", f"vlm-rl-1-{role}"]
    name = simulation.make_pod("p", deployment, deployment["spec"]["template"], 0)
    status = {
        "name": "fetch-model",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": code, "message": message}},
    }
    simulation.pods[name]["status"]["initContainerStatuses"] = [status]
    simulation.tick()
    return simulation


def told(failure_class: FailureClass, reason: str, message: str, attempt: int = 1) -> str:
    return Termination(
        stage=Stage.RL, attempt=attempt, outcome="Failed", failure_class=failure_class,
        reason=reason, message=message,
    ).encode()  # fmt: skip


CORRUPT = "s3://b/model.safetensors has sha256 12, its manifest says 34"


@pytest.mark.parametrize("role", ["rollout", "judge"])
def test_a_server_that_cannot_start_before_the_user_changes_something_fails_the_job_at_once(
    role: str,
):
    message = told(FailureClass.CONFIGURATION, "ArtifactCorrupt", CORRUPT)
    simulation = with_ended_init_container(78, message, role)
    failed = simulation.condition("Failed")
    assert failed["reason"] == "ConfigurationError"
    text = f"ArtifactCorrupt: pod p, container fetch-model: {CORRUPT}; when that is mended"
    assert text in failed["message"]
    assert simulation.stage(Stage.RL)["reason"] == "ArtifactCorrupt"
    assert simulation.names("Deployment", "Service") == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "StorageDenied: bucket reward-models: access denied",
            ": StorageDenied: bucket reward-models: access denied",
        ),
        (told(FailureClass.CONFIGURATION, "StorageDenied", "of another attempt", attempt=7), ""),
    ],
    ids=["the end of its log", "a message of another attempt"],
)
def test_a_server_that_leaves_no_message_of_its_attempt_is_judged_by_its_exit_code(
    message: str, said: str
):
    simulation = with_ended_init_container(78, message)
    failed = simulation.condition("Failed")
    assert failed["reason"] == "ConfigurationError"
    assert f"container fetch-model ended with exit code 78{said}; when that" in failed["message"]
    assert simulation.stage(Stage.RL)["reason"] == "ConfigurationError"


def test_a_server_whose_storage_is_away_only_tries_again_and_says_so():
    message = told(FailureClass.INFRASTRUCTURE, "StorageUnavailable", "get s3://b: refused")
    simulation = with_ended_init_container(75, message)
    assert simulation.condition("Failed")["status"] == "False"
    blocked = simulation.condition("Blocked")
    assert (blocked["status"], blocked["reason"]) == ("True", "CrashLoop")
    assert "StorageUnavailable: get s3://b: refused" in blocked["message"]
    assert simulation.stage(Stage.RL)["phase"] == "Starting"
    simulation.pods["p"]["status"] = {"phase": "Running"}
    simulation.tick()
    assert simulation.condition("Blocked")["status"] == "False"


def test_a_worker_that_holds_nothing_may_wait_for_ever():
    simulation = Simulation(example_spec(policy={"startDeadlineSeconds": 10}))
    simulation.tick()
    simulation.tick(1_000_000)
    assert simulation.stage(Stage.PREPARE)["phase"] == "Starting"


def test_a_start_is_timed_from_when_the_attempt_holds_something():
    simulation = at_rl(policy={"startDeadlineSeconds": 600, "infrastructureLimit": 0})
    simulation.spec["suspend"] = True
    simulation.tick()
    simulation.spec["suspend"] = False
    simulation.has_runtime = False
    simulation.pods.clear()
    simulation.tick()
    assert simulation.condition("Blocked")["reason"] == "Dependency"
    attempt = simulation.stage(Stage.RL)["attempt"]
    simulation.tick(3600)
    simulation.has_runtime = True
    simulation.tick()
    stage = simulation.stage(Stage.RL)
    assert (stage["phase"], stage["attempt"]) == ("Starting", attempt + 1)
    simulation.tick(599)
    assert simulation.stage(Stage.RL)["phase"] == "Starting"
    simulation.tick(1)
    assert simulation.stage(Stage.RL)["phase"] == "Failed"


def test_a_gang_that_was_queued_for_long_still_has_its_time_to_start():
    spec = example_spec(policy={"startDeadlineSeconds": 600})
    spec["sft"]["workers"] = 2
    simulation = Simulation(spec)
    simulation.walk_to(Stage.SFT)
    simulation.tick(7200)
    worker = simulation.worker()
    assert worker is not None
    first, _ = simulation.make_pods(worker)
    began = simulation.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    simulation.pods[first]["status"] = {"phase": "Running", "startTime": began}
    simulation.tick(599)
    assert simulation.stage(Stage.SFT)["phase"] == "Starting"
    simulation.tick(1)
    assert simulation.stage(Stage.SFT)["reason"] == "StartDeadlineExceeded"


def test_an_attempt_that_runs_too_long_is_ended_and_counted():
    simulation = at_rl(policy={"activeDeadlineSeconds": 3600})
    simulation.tick(3599)
    assert simulation.stage(Stage.RL)["phase"] == "Running"
    simulation.tick(1)
    stage = simulation.stage(Stage.RL)
    assert (stage["phase"], stage["reason"], stage["programFailures"]) == (
        "Retrying", "ActiveDeadlineExceeded", 1,
    )  # fmt: skip


def test_replicas_that_grow_beyond_the_runtimes_limit_stop_there_while_the_stage_runs():
    simulation = at_rl()
    simulation.spec["rl"]["rollout"]["replicas"] = 900
    simulation.spec["rl"]["verifier"]["replicas"] = 900
    simulation.spec["rl"]["verifier"]["judge"]["replicas"] = 900
    simulation.tick()
    limits = simulation.runtime["limits"]
    replicas = {n: simulation.children["Deployment", n]["spec"]["replicas"] for n in SERVERS}
    assert replicas["vlm-rl-1-rollout"] == limits["rolloutReplicas"]
    assert replicas["vlm-rl-1-judge"] == limits["rolloutReplicas"]
    assert replicas["vlm-rl-1-verifier"] == limits["verifierReplicas"]
    assert simulation.stage(Stage.RL)["phase"] == "Running"


def test_replicas_beyond_the_limit_cost_a_job_that_has_begun_nothing():
    simulation = at_rl()
    simulation.spec["rl"]["rollout"]["replicas"] = 900
    simulation.spec["evaluate"]["rolloutReplicas"] = 900
    simulation.fail(Stage.RL, FailureClass.INFRASTRUCTURE)
    simulation.collect()
    simulation.tick(300)
    most = simulation.runtime["limits"]["rolloutReplicas"]
    assert simulation.stage(Stage.RL)["phase"] == "Starting"
    assert simulation.children["Deployment", "vlm-rl-2-rollout"]["spec"]["replicas"] == most
    simulation.serve()
    simulation.run()
    simulation.succeed(Stage.RL)
    simulation.collect()
    assert simulation.stage(Stage.EVALUATE)["phase"] == "Starting"
    assert simulation.children["Deployment", "vlm-evaluate-1-rollout"]["spec"]["replicas"] == most


def test_suspend_frees_everything_and_resume_is_an_attempt_that_costs_nothing():
    simulation = at_rl()
    simulation.spec["suspend"] = True
    simulation.tick()
    assert simulation.stage(Stage.RL)["phase"] == "Suspended"
    assert simulation.names("Deployment", "Service", "ConfigMap", "NetworkPolicy") == []
    assert "vlm-rl-1" not in simulation.names("PyTorchJob")
    assert simulation.condition("Suspended")["status"] == "True"
    simulation.collect()
    simulation.spec["suspend"] = False
    simulation.tick()
    stage = simulation.stage(Stage.RL)
    assert (stage["phase"], stage["attempt"]) == ("Starting", 2)
    assert (stage["programFailures"], stage["infrastructureFailures"]) == (0, 0)
    assert simulation.condition("Suspended")["reason"] == "Resumed"


@pytest.mark.parametrize("failure_class", FailureClass)
@pytest.mark.parametrize("writes", [0, 1, 2, 4, 8])
def test_an_operator_that_ends_between_two_writes_blames_nobody_else(
    failure_class: FailureClass, writes: int
):
    whole, broken = at_rl(), at_rl()
    whole.fail(Stage.RL, failure_class, "NonFiniteLoss")
    broken.report_failure(Stage.RL, failure_class, "NonFiniteLoss")
    broken.carry_out(broken.plan(), writes)
    broken.tick()
    assert broken.status == whole.status
    assert broken.names() == whole.names()


def test_rerun_starts_a_failed_job_again_from_prepare_and_goes_on_counting_attempts():
    simulation = at_rl(policy={"backoffLimit": 0})
    simulation.fail(Stage.RL, FailureClass.PROGRAM)
    assert simulation.status["phase"] == "Failed"
    simulation.spec["rerun"] = 1
    simulation.tick()
    simulation.collect()
    assert {s["name"]: (s["phase"], s["attempt"]) for s in simulation.status["stages"]} == {
        "prepare": ("Starting", 2),
        "annotate": ("Pending", 1),
        "sft": ("Pending", 1),
        "rl": ("Pending", 1),
        "evaluate": ("Pending", 0),
    }
    assert simulation.condition("Failed")["status"] == "False"
    assert "completionTime" not in simulation.status
    simulation.walk_to(Stage.RL)
    assert simulation.stage(Stage.RL)["attempt"] == 2


def test_a_finished_job_is_deleted_after_its_ttl_and_not_before():
    simulation = Simulation(example_spec(policy={"ttlSecondsAfterFinished": 60}))
    simulation.walk_to(Stage.EVALUATE)
    simulation.run()
    simulation.succeed(Stage.EVALUATE)
    simulation.tick(59)
    assert (simulation.job_deleted, simulation.last.requeue_after) == (False, 1)
    simulation.tick(1)
    assert simulation.job_deleted


def test_more_replicas_reach_the_servers_and_nothing_else_of_the_spec_does():
    simulation = at_rl()
    before = simulation.children[("Deployment", "vlm-rl-1-rollout")]["spec"]
    simulation.spec["rl"]["rollout"]["replicas"] = 5
    simulation.spec["rl"]["learningRate"] = 0.5
    simulation.tick()
    after = simulation.children[("Deployment", "vlm-rl-1-rollout")]["spec"]
    assert after == {**before, "replicas": 5}
    assert simulation.stage(Stage.RL)["phase"] == "Running"


def test_a_new_runtime_changes_no_object_of_a_started_attempt():
    simulation = at_rl()
    before = dict(simulation.children)
    simulation.runtime["images"] = {"trainer": "new/trainer", "rollout": "new/rollout"}
    simulation.tick()
    assert simulation.children == before


def test_a_stage_that_has_run_keeps_its_key_and_what_the_key_counts_in_later_attempts():
    simulation = at_rl()
    key = simulation.stage(Stage.RL)["key"]
    simulation.runtime["images"] = {"trainer": "new/trainer", "rollout": "new/rollout"}
    simulation.runtime["serving"] = {"dtype": "float32"}
    simulation.runtime["roles"]["trainer"]["nodeSelector"] = {"zone": "b"}
    simulation.fail(Stage.RL, FailureClass.INFRASTRUCTURE)
    simulation.collect()
    simulation.tick(300)
    frozen = simulation.children[("ControllerRevision", "vlm-rl-2-frozen")]["data"]
    assert frozen["key"] == key == simulation.stage(Stage.RL)["key"]
    assert frozen["runtime"]["images"] == {
        "trainer": "r1reward/trainer:v0.1.0", "rollout": "r1reward/rollout:v0.1.0",
        "pullPolicy": "IfNotPresent", "pullSecrets": [],
    }  # fmt: skip
    assert frozen["runtime"]["serving"]["dtype"] == "bfloat16"
    assert frozen["runtime"]["roles"]["trainer"]["nodeSelector"] == {"zone": "b"}
    assert ("ControllerRevision", "vlm-rl-1-frozen") not in simulation.children


def test_a_stage_that_never_ran_takes_a_corrected_rollout_image_and_another_key():
    simulation = Simulation()
    simulation.walk_to(Stage.RL)
    before = simulation.children[("ControllerRevision", "vlm-rl-1-frozen")]["data"]["key"]
    simulation.runtime["images"] = {"trainer": "t", "rollout": "corrected/rollout"}
    simulation.tick(1800)
    simulation.collect()
    simulation.tick(300)
    after = simulation.children[("ControllerRevision", "vlm-rl-2-frozen")]["data"]
    assert after["runtime"]["images"]["rollout"] == "corrected/rollout"
    assert after["key"] != before


def test_a_forged_revision_is_not_carried_out():
    simulation = at_rl()
    revision = simulation.children[("ControllerRevision", "vlm-rl-1-frozen")]
    revision["data"]["objects"][0]["metadata"]["namespace"] = "kube-system"
    wanted = simulation.plan()
    assert wanted.objects == ()
    assert wanted.status is not None
    stage = next(s for s in wanted.status["stages"] if s["name"] == "rl")
    assert (stage["phase"], stage["reason"]) == ("Retrying", "PodLost")


def test_without_the_training_operator_the_job_waits_before_it_holds_servers():
    simulation = Simulation()
    simulation.absent = frozenset({"PyTorchJob"})
    simulation.tick()
    simulation.run()
    simulation.succeed(Stage.PREPARE)
    simulation.run()
    simulation.succeed(Stage.ANNOTATE)
    assert simulation.stage(Stage.SFT)["phase"] == "Pending"
    assert simulation.condition("Blocked")["reason"] == "Dependency"
    assert "install the Kubeflow training operator" in simulation.condition("Blocked")["message"]
    simulation.absent = frozenset()
    simulation.tick(30)
    assert simulation.condition("Blocked")["status"] == "False"
    assert simulation.stage(Stage.SFT)["phase"] == "Starting"


def test_without_the_training_operator_an_attempt_that_has_begun_says_so_before_it_needs_it():
    simulation = starting(Stage.RL)
    simulation.absent = frozenset({"PyTorchJob"})
    simulation.tick()
    assert simulation.condition("Blocked")["reason"] == "Dependency"
    assert "install the Kubeflow training operator" in simulation.condition("Blocked")["message"]
    simulation.absent = frozenset()
    simulation.tick()
    assert simulation.condition("Blocked")["status"] == "False"


def test_what_the_api_server_refuses_for_now_blocks_and_what_it_refuses_for_ever_fails():
    simulation = Simulation()
    simulation.tick()
    quota = Blocked(Reason.QUOTA, "Job vlm-prepare-1 was refused: exceeded quota")
    blocked = simulation.plan(Obstacle(quota)).status
    assert blocked is not None
    assert blocked["phase"] == "Blocked"
    assert blocked["stages"][0]["phase"] == "Starting"
    invalid = Blocked(Reason.INVALID_SPEC, "Job vlm-prepare-1 is not valid: affinity")
    failed = simulation.plan(Obstacle(invalid, final=True)).status
    assert failed is not None
    assert failed["phase"] == "Failed"
    assert {c["type"]: c["reason"] for c in failed["conditions"]}["Failed"] == "InvalidSpec"


def with_a_spec_of_no_model(simulation: Simulation) -> Plan:
    """What is planned when a newer operator no longer takes the job's spec."""
    observed = replace(simulation.observed(), spec=None, problem="spec.data.seed: must be an int")
    return plan(observed, simulation.now, SETTINGS)


def test_a_job_at_work_whose_spec_fits_no_model_any_more_fails_and_holds_nothing():
    simulation = at_rl()
    simulation.carry_out(with_a_spec_of_no_model(simulation))
    assert simulation.condition("Failed")["reason"] == "InvalidSpec"
    assert simulation.stage(Stage.RL)["phase"] == "Failed"
    assert simulation.names("Deployment", "Service", "ControllerRevision") == []
    assert simulation.last.requeue_after == 30
    simulation.now += timedelta(seconds=30)
    before = simulation.status
    simulation.carry_out(with_a_spec_of_no_model(simulation))
    assert simulation.worker() is None, "its pods hold GPUs"
    assert simulation.status == before


@pytest.mark.parametrize("suspended", [True, False])
def test_an_upgrade_in_between_hides_no_condition(suspended: bool):
    simulation = at_rl()
    simulation.spec["evaluate"] = {"gates": [{"metric": "Accuracy", "minimum": 0.5}]}
    simulation.spec["suspend"] = suspended
    simulation.tick()
    before = {kind: simulation.condition(kind) for kind in ("Suspended", "GatesPassed")}
    phase = simulation.status["phase"]
    problem = "spec.evaluate.x: of a newer CRD"
    newer = replace(simulation.observed(), spec=None, newer=True, problem=problem)
    simulation.carry_out(plan(newer, simulation.now + timedelta(hours=1), SETTINGS))
    after = {kind: simulation.condition(kind) for kind in before}
    assert {k: (c["status"], c["lastTransitionTime"]) for k, c in after.items()} == {
        k: (c["status"], c["lastTransitionTime"]) for k, c in before.items()
    }
    assert simulation.status["phase"] == (phase if suspended else "Blocked")
    assert problem in simulation.condition("Ready")["message"]


def test_a_job_that_has_succeeded_stays_so_whatever_becomes_of_its_spec():
    simulation = at_rl()
    simulation.succeed(Stage.RL)
    simulation.serve()
    simulation.run()
    simulation.succeed(Stage.EVALUATE)
    assert simulation.condition("Succeeded")["status"] == "True"
    nothing = with_a_spec_of_no_model(simulation)
    assert (nothing.status, nothing.deletions, nothing.events) == (None, (), ())


def test_a_job_that_has_not_begun_may_still_change():
    simulation = Simulation()
    simulation.has_runtime = False
    simulation.tick()
    assert "startTime" not in simulation.status
    assert simulation.condition("Blocked")["reason"] == "Dependency"
    simulation.has_runtime = True
    simulation.tick()
    assert simulation.status["startTime"] == "2026-01-02T03:04:05Z"


def test_the_columns_show_the_current_attempts_progress_and_no_other():
    simulation = at_rl()
    report = Progress(
        stage="rl", attempt=1, step=4, total_steps=10, percent=40, eta_seconds=7500,
        checkpoint_step=3, checkpoint_uri="s3://b/c", heartbeat="2026-01-02T03:04:05Z",
    )  # fmt: skip
    simulation.progress = report
    simulation.tick()
    assert simulation.status["summary"] == {"progress": "40%", "eta": "2h5m"}
    assert simulation.status["checkpoint"] == {"stage": "rl", "step": 3, "uri": "s3://b/c"}
    assert "progress" not in simulation.status
    simulation.progress = report.model_copy(update={"attempt": 2})
    simulation.tick()
    assert "progress" not in simulation.status["summary"]


def test_a_job_on_its_way_out_is_left_to_the_garbage_collector():
    simulation = at_rl()
    observed = simulation.observed()
    observed.job["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"  # type: ignore[index]
    assert plan(observed, simulation.now, Settings()) == Plan()


@pytest.mark.parametrize("kind", ["Succeeded", "Failed", "Suspended", "Blocked", "Ready"])
def test_a_transition_time_moves_only_with_its_status(kind: str):
    simulation = Simulation()
    simulation.tick()
    before = simulation.condition(kind)["lastTransitionTime"]
    simulation.now = simulation.now.replace(hour=9)
    simulation.run()
    simulation.succeed(Stage.PREPARE)
    assert simulation.condition(kind)["lastTransitionTime"] == before
