# SPDX-License-Identifier: Apache-2.0
"""One small job meets a handful of faults: it succeeds, leaves nothing, and tells no secret."""

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from r1reward_api.constants import LABEL_JOB, Role
from r1reward_trainer.outcome import StageError
from r1reward_trainer.storage.s3 import Store
from tests.e2e import digits_job, leaks, watch
from tests.e2e.connection import Connection
from tests.e2e.soak import checks, jobs, machine, storage
from tests.e2e.soak.faults import BY_NAME, Target, pods_of
from tests.e2e.soak.history import History, look
from tests.e2e.soak.site import OPERATOR, Site, require_local_cluster
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.timeout(1500)
NAMESPACE = "r1reward-hit"
NAME = "hit"
RUNTIME = "cpu-hit"
STAGE_SECONDS = 300
END_SECONDS = 600
RELEASE_SECONDS = 180
S3_SECONDS = 15.0


@dataclass
class Walk:
    """A job on its way, looked at whenever something is waited for.

    Attributes:
        site: where it runs.
        job: as it was applied.
        store: at the namespace's root.
        faults: what it has met.
        tokens: of its attempts, by the names of their Secrets.
        logs: of pods that may be gone by the end.
    """

    site: Site
    job: Mapping[str, Any]
    store: Store
    status: Mapping[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    faults: list[checks.Injected] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    logs: list[leaks.Text] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def until(self, what: str, probe: Callable[[Mapping[str, Any]], bool], seconds: float) -> None:
        """Waits until the status is so; the job must not fail meanwhile."""

        def step() -> bool:
            self._look()
            assert not watch.is_true(self.status, "Failed"), self.status["conditions"]
            return probe(self.status)

        wait_for(what, step, seconds)

    def meet(self, name: str, role: Role | None = None) -> None:
        """Lets a fault of the soak's table happen now, to a pod of the role if it has one."""
        fault = BY_NAME[name]
        candidates = fault.candidates if role is None else pods_of(role)
        self._read_logs()
        target = candidates(self.site, [NAME])[0]
        self._happens(name, target, 0.0, lambda: fault.begin(self.site, target))

    def without_s3(self, seconds: float) -> None:
        """The object store is away for a while."""
        self._happens("stop-s3", Target(), seconds, machine.stop_s3)
        try:
            time.sleep(seconds)
        finally:
            machine.start_s3()

    def pause(self) -> None:
        """Suspends the job, waits until it holds nothing, and resumes it."""
        target = Target(NAME)
        self._happens("suspend-job", target, 0.0, lambda: self.site.suspend(NAME, True))
        self.until("suspended", lambda s: watch.is_true(s, "Suspended"), RELEASE_SECONDS)
        wait_for("no pods", lambda: not self.site.running_pods([NAME]), RELEASE_SECONDS)
        self.site.suspend(NAME, False)

    def losses(self, stage: str) -> list[str | None]:
        """Why attempts of a stage ended badly."""
        return [loss.reason for loss in self.history.losses if loss.stage == stage]

    def read_last_logs(self) -> None:
        """The logs of all pods that are there."""
        self._read_logs()

    def _happens(self, name: str, target: Target, seconds: float, act: Callable[[], None]) -> None:
        now = time.monotonic() - self.start
        reasons = BY_NAME[name].reasons
        self.faults.append(
            checks.Injected(name, target.job, target.pod_name, now, now + seconds, reasons)
        )
        act()

    def _look(self) -> None:
        found = self.site.get(NAME) or {"metadata": {"uid": ""}}
        self.status = found.get("status", {})
        try:
            pointers = storage.committed(self.store, found["metadata"]["uid"], self.status)
        except StageError:
            pointers = None
        self.history = look(self.history, self.status, pointers, time.monotonic() - self.start)
        self._read_tokens()

    def _read_tokens(self) -> None:
        where = ("-n", NAMESPACE, "get", "secrets", "-l", f"{LABEL_JOB}={NAME}")
        for secret in self.site.kubectl.json(*where)["items"]:
            token = base64.b64decode(secret["data"]["token"]).decode()
            self.tokens[secret["metadata"]["name"]] = token

    def _read_logs(self) -> None:
        selector = f"{LABEL_JOB}={NAME}"
        self.logs += leaks.logs(self.site.kubectl, NAMESPACE, selector)


def is_running(stage: str, attempt: int) -> Callable[[Mapping[str, Any]], bool]:
    def probe(status: Mapping[str, Any]) -> bool:
        found = watch.stage(status, stage)
        return found["phase"] == "Running" and found["attempt"] >= attempt

    return probe


@pytest.fixture(scope="module")
def walk(cluster: Connection) -> Iterator[Walk]:
    """The job after it ended."""
    require_local_cluster()
    kubectl, values = cluster.kubectl, cluster.storage
    site = Site(cluster, NAMESPACE)
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
    digits_job.make_namespace(kubectl, values, NAMESPACE)
    kubectl.apply(jobs.runtime(RUNTIME))
    job = jobs.small_job(
        NAME,
        seed=int(time.time()) % 2**31,
        runtimeRef={"name": RUNTIME},
        sft={"maxSteps": 120},
        rl={"maxSteps": 10},
    )
    site.apply(job)
    walk = Walk(site, job, Store(f"s3://{values['R1_BUCKET']}/artifacts/{NAMESPACE}", values))
    committed = walk_has_committed(walk)
    walk.until("a checkpoint of sft", committed("sft"), STAGE_SECONDS)
    walk.pause()
    walk.until("sft goes on", is_running("sft", 2), STAGE_SECONDS)
    walk.without_s3(S3_SECONDS)
    walk.until("a checkpoint of rl", committed("rl"), STAGE_SECONDS)
    walk.meet("kill-trainer")
    walk.until("rl goes on", is_running("rl", 2), STAGE_SECONDS)
    walk.meet("delete-pod", Role.ROLLOUT)
    walk.until("evaluate", is_running("evaluate", 1), STAGE_SECONDS)
    walk.read_last_logs()
    walk.until("the end", lambda s: watch.is_true(s, "Succeeded"), END_SECONDS)
    walk.read_last_logs()
    yield walk
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
    kubectl.run("delete", "clusterr1rewardruntime", RUNTIME, "--ignore-not-found")


def walk_has_committed(walk: Walk) -> Callable[[str], Callable[[Mapping[str, Any]], bool]]:
    """Whether the pointer in storage, not only the status, has a step of a stage."""

    def of(stage: str) -> Callable[[Mapping[str, Any]], bool]:
        def probe(status: Mapping[str, Any]) -> bool:
            pointers = walk.history.pointers
            return any(step and f"stages/{stage}/" in folder for folder, step in pointers.items())

        return probe

    return of


def test_every_lost_attempt_has_the_reason_of_a_fault_and_no_committed_step_was_lost(walk: Walk):
    assert checks.problems(walk.job, walk.status, walk.history, walk.faults) == []


def test_faults_of_the_infrastructure_cost_the_attempts_that_they_hit_and_no_other(walk: Walk):
    # The kill costs rl one attempt; the server that was deleted is replaced within the next.
    assert len(walk.losses("rl")) == 1
    assert set(walk.losses("rl")) <= BY_NAME["kill-trainer"].reasons
    # Storage that is away for a quarter of a minute is waited for, or costs one attempt.
    assert walk.losses("sft") in ([], ["StorageUnavailable"], ["PeerLost"])
    attempts = {s["name"]: s["attempt"] for s in walk.status["stages"]}
    assert attempts == {
        "prepare": 1,
        "annotate": 1,
        "sft": 2 + len(walk.losses("sft")),  # the suspension took one, and is no loss
        "rl": 2,
        "evaluate": 1,
    }
    assert all(s.get("programFailures", 0) == 0 for s in walk.status["stages"])


def test_secrets_stand_in_no_log_event_status_report_or_object(walk: Walk):
    kubectl, values = walk.site.kubectl, walk.site.connection.storage
    secrets = {
        "S3 access key": values["AWS_ACCESS_KEY_ID"],
        "S3 secret key": values["AWS_SECRET_ACCESS_KEY"],
        "teacher's API key": digits_job.teacher_key(values),
        **{f"token of {name}": token for name, token in walk.tokens.items()},
    }
    kinds = "r1rj,events,pods,jobs,pytorchjobs,services,configmaps,controllerrevisions"
    texts = [
        *walk.logs,
        *leaks.logs(kubectl, digits_job.SYSTEM_NAMESPACE, OPERATOR),
        *leaks.logs(kubectl, digits_job.NAMESPACE, "app.kubernetes.io/name=digits-teacher"),
        *leaks.descriptions(kubectl, NAMESPACE, kinds),
        *leaks.objects(walk.store),
    ]
    # The search looks where it should, and would find what it looks for.
    assert {"rl", "evaluate"} <= {stage_of_token(name) for name in walk.tokens}
    where = [w for w, _ in texts]
    assert f"R1RewardJob {NAME}" in where
    for needed in (f"jobs/{NAME}/logs/rl/attempt-1/", f"jobs/{NAME}/report/", "log of"):
        assert any(needed in w for w in where), (needed, where)
    assert leaks.leaks({"the job's name": NAME}, texts)
    assert leaks.leaks(secrets, texts) == []


def stage_of_token(name: str) -> str:
    """`hit-rl-1-token-…` is of rl."""
    return name.split("-")[1]


def test_the_ended_job_holds_nothing_and_deleted_it_is_as_if_it_had_never_been(walk: Walk):
    site, values = walk.site, walk.site.connection.storage
    gone("held", lambda: checks.held(site.objects(NAME), walk.status))
    assert storage.unfinished_uploads(values, values["R1_BUCKET"]) == []
    site.delete(NAME)
    gone("left", lambda: checks.names(site.objects(NAME)))
    site.kubectl.run("delete", "namespace", NAMESPACE, "--timeout=180s")


def gone(what: str, left: Callable[[], Sequence[str]]) -> None:
    """Waits until nothing is left; says what was when it takes too long."""
    try:
        wait_for(what, lambda: not left(), RELEASE_SECONDS)
    except TimeoutError:
        assert list(left()) == [], what
