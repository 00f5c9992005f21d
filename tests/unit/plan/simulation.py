# SPDX-License-Identifier: Apache-2.0
"""A cluster small enough to think about: it carries plans out in memory, and the test says
what kubelets and controllers report. Only `plan` itself is under test."""

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from r1reward_api.constants import LABEL_TRAINING_INDEX, Stage
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import R1RewardRuntimeSpec
from r1reward_api.resource.status import R1RewardJobStatus
from r1reward_api.wire.progress import Progress
from r1reward_api.wire.termination import BriefOutput, FailureClass, Termination
from r1reward_operator.observed import Observed, Runtime, attempt_of
from r1reward_operator.plan import Deletion, Event, Obstacle, Plan, Settings, plan
from r1reward_operator.stores import slim_pod

EXAMPLE = Path("manifests/examples/qwen2.5-vl-7b.yaml")
RUNTIME = Path("manifests/runtimes/nvidia-h100.yaml")
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = Settings(progress_url="http://r1reward-operator.r1reward-system.svc:8082")
OUTPUTS = {
    Stage.PREPARE: ("model", "train", "heldout"),
    Stage.ANNOTATE: ("sft", "rl"),
    Stage.SFT: ("weights", "metrics"),
    Stage.RL: ("weights", "metrics"),
    Stage.EVALUATE: ("predictions", "report"),
}
CODE = {stage.value: f"code-of-{stage}" for stage in Stage}
WORKER_KINDS = ("Job", "PyTorchJob")
_LIMIT = 50


def example_spec(**changes: Any) -> dict[str, Any]:
    """The example job's spec with other sections; None leaves one out."""
    spec = yaml.safe_load(EXAMPLE.read_text())["spec"]
    return {k: v for k, v in {**spec, **changes}.items() if v is not None}


def example_runtime(**changes: Any) -> dict[str, Any]:
    """The example runtime's spec with other sections."""
    return {**yaml.safe_load(RUNTIME.read_text())["spec"], **changes}


def outputs(stage: Stage) -> dict[str, BriefOutput]:
    """What a stage leaves."""
    return {n: BriefOutput(digest=f"sha256:{stage}-{n}", bytes=10) for n in OUTPUTS[stage]}


class Simulation:
    """One job and its cluster.

    Args:
        spec: the job's spec on the wire.
        runtime: the runtime's spec on the wire; None: there is none.
    """

    def __init__(
        self, spec: Mapping[str, Any] | None = None, runtime: Mapping[str, Any] | None = None
    ) -> None:
        self.now = START
        self.spec = dict(spec or example_spec())
        self.runtime = dict(runtime if runtime is not None else example_runtime())
        self.has_runtime = True
        self.absent: frozenset[str] = frozenset()
        self.listening_since: datetime | None = None
        self.status: dict[str, Any] = {}
        self.progress: Progress | None = None
        self.children: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.tokens: list[str] = []
        self.events: list[Event] = []
        self.generation = 1
        self.job_deleted = False
        self.last = Plan()
        self._uids = 0

    # --- the operator

    def observed(self) -> Observed:
        """What the operator would observe now."""
        runtime = Runtime(None, "ClusterR1RewardRuntime nvidia-h100 does not exist")
        if self.has_runtime:
            runtime = Runtime(R1RewardRuntimeSpec.model_validate(self.runtime))
        status = R1RewardJobStatus.model_validate(self.status)
        return Observed(
            job={
                "metadata": {
                    "name": "vlm",
                    "namespace": "team-a",
                    "uid": "job-uid",
                    "generation": self.generation,
                }
            },
            spec=R1RewardJobSpec.model_validate(self.spec),
            status=status.model_copy(update={"progress": self.progress}),
            runtime=runtime,
            children=tuple(self.children[k] for k in sorted(self.children)),
            pods=tuple(slim_pod(self.pods[k]) for k in sorted(self.pods)),  # all that is kept
            absent=self.absent,
            listening_since=self.listening_since,
        )

    def plan(self, obstacle: Obstacle | None = None) -> Plan:
        """The plan for this moment."""
        return plan(self.observed(), self.now, SETTINGS, obstacle)

    def tick(self, seconds: float = 0) -> None:
        """Lets time pass, then plans and carries out until nothing changes."""
        self.now += timedelta(seconds=seconds)
        for _ in range(_LIMIT):
            if not self.carry_out(self.plan()):
                return
        raise AssertionError("plans do not come to rest")

    def carry_out(self, wanted: Plan, writes: int | None = None) -> bool:
        """Does what a plan says, in its order.

        Args:
            wanted: the plan.
            writes: the operator ends after so many writes; None: it does not.

        Returns:
            Whether that changed anything.
        """
        self.last = wanted
        changes = [write() for write in self._writes(wanted)[:writes]]
        return any(changes)

    def _writes(self, wanted: Plan) -> list[Callable[[], bool]]:
        """Each write says whether it changed anything."""
        writes: list[Callable[[], bool]] = []
        writes += [partial(self._create_token, t["metadata"]["name"]) for t in wanted.tokens]
        writes += [partial(self._ensure, wish) for wish in wanted.objects]
        if wanted.status is not None and wanted.status != self.status:
            writes.append(partial(self._write_status, wanted))
        writes += [partial(self._delete, deletion) for deletion in wanted.deletions]
        if wanted.delete_job and not self.job_deleted:
            writes.append(self._delete_job)
        return writes

    def _create_token(self, name: str) -> bool:
        if name in self.tokens:
            return False  # AlreadyExists, which is as good
        self.tokens.append(name)
        return True

    def _write_status(self, wanted: Plan) -> bool:
        self.status = wanted.status or {}
        self.events += wanted.events
        return True

    def _delete(self, deletion: Deletion) -> bool:
        child = self.children.get((deletion.kind, deletion.name))
        assert child is not None
        assert child["metadata"]["uid"] == deletion.uid
        del self.children[(deletion.kind, deletion.name)]
        return True

    def _delete_job(self) -> bool:
        self.job_deleted = True
        return True

    def _ensure(self, wish: Mapping[str, Any]) -> bool:
        key = (wish["kind"], wish["metadata"]["name"])
        live = self.children.get(key)
        if live is None:
            stamp = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
            meta = {"uid": self._uid(), "generation": 1, "creationTimestamp": stamp}
            made = copy.deepcopy(dict(wish))
            made["metadata"] = {**made["metadata"], **meta}
            self.children[key] = made
        elif "spec" in wish and live["spec"] != wish["spec"]:
            live["spec"] = copy.deepcopy(wish["spec"])
            live["metadata"]["generation"] += 1
        else:
            return False
        return True

    def _uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"

    # --- reading

    def stage(self, stage: Stage) -> dict[str, Any]:
        """A stage's status."""
        return next(s for s in self.status["stages"] if s["name"] == stage.value)

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition."""
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def names(self, *kinds: str) -> list[str]:
        """Names of the children of some kinds, or of all."""
        return [n for k, n in sorted(self.children) if not kinds or k in kinds]

    def worker(self) -> dict[str, Any] | None:
        """The one worker that is not finished."""
        found = [
            c for (k, _), c in self.children.items()
            if k in WORKER_KINDS and not c.get("status", {}).get("conditions")
        ]  # fmt: skip
        assert len(found) <= 1, "two workers at once"
        return found[0] if found else None

    # --- what kubelets and controllers do

    def serve(self) -> None:
        """All Deployments become ready."""
        for (kind, _), child in self.children.items():
            if kind == "Deployment":
                replicas = child["spec"]["replicas"]
                child["status"] = {
                    "observedGeneration": child["metadata"]["generation"],
                    "updatedReplicas": replicas,
                    "readyReplicas": replicas,
                }
        self.tick()

    def run(self) -> list[str]:
        """The worker's pods run. Returns their names."""
        worker = self.worker()
        assert worker is not None, "there is no worker"
        names = self.make_pods(worker)
        for name in names:
            self.pods[name]["status"] = {"phase": "Running"}
        self.tick()
        return names

    def make_pods(self, worker: Mapping[str, Any]) -> list[str]:
        """The worker's pods are created, pending."""
        name = worker["metadata"]["name"]
        if worker["kind"] == "Job":
            return [self.make_pod(f"{name}-abcde", worker, worker["spec"]["template"], 0)]
        replica = worker["spec"]["pytorchReplicaSpecs"]["Worker"]
        return [
            self.make_pod(f"{name}-worker-{i}", worker, replica["template"], i)
            for i in range(replica["replicas"])
        ]

    def make_pod(
        self, name: str, owner: Mapping[str, Any], template: Mapping[str, Any], index: int
    ) -> str:
        """One pod is created, pending."""
        labels = {**template["metadata"]["labels"]}
        if owner["kind"] == "PyTorchJob":
            labels[LABEL_TRAINING_INDEX] = str(index)
        self.pods[name] = {
            "kind": "Pod",
            "metadata": {
                "name": name,
                "uid": self._uid(),
                "labels": labels,
                "ownerReferences": [{"uid": owner["metadata"]["uid"], "controller": True}],
            },
            "spec": {},
            "status": {"phase": "Pending"},
        }
        return name

    def end(self, name: str, code: int, message: Termination | str = "", **state: Any) -> None:
        """A pod's container ends."""
        text = message.encode() if isinstance(message, Termination) else message
        stamp = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        ended = {"exitCode": code, "message": text, "finishedAt": stamp, **state}
        container = "pytorch" if "-worker-" in name else "r1"
        self.pods[name]["status"] = {
            **self.pods[name]["status"],
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": container, "state": {"terminated": ended}}],
        }

    def succeed(self, stage: Stage, **told: Any) -> None:
        """The worker ends with success."""
        worker = self.worker()
        assert worker is not None
        _, attempt = attempt_of(worker) or ("", 0)
        message = Termination(
            stage=stage,
            attempt=attempt,
            outcome="Succeeded",
            key=told.pop("key", "prepared" if stage is Stage.PREPARE else None),
            run=f"runs/job-uid/attempt-{attempt}",
            outputs=outputs(stage),
            code=CODE if stage is Stage.PREPARE else {},
            **told,
        )
        for name, pod in self.pods.items():
            if attempt_of(pod) == (stage.value, attempt) and self._is_of(pod, worker):
                self.end(name, 0, message)
        self.finish(worker, "Succeeded" if worker["kind"] == "PyTorchJob" else "Complete")
        self.tick()

    def finish(self, worker: dict[str, Any], kind: str) -> None:
        """A worker's controller reports its end."""
        stamp = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        worker["status"] = {
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": stamp}]
        }

    def fail(self, stage: Stage, failure_class: FailureClass, reason: str = "ProgramError") -> None:
        """All pods of the worker fail, and the operator sees it."""
        self.report_failure(stage, failure_class, reason)
        self.tick()

    def report_failure(self, stage: Stage, failure_class: FailureClass, reason: str) -> None:
        """All pods of the worker fail."""
        worker = self.worker()
        assert worker is not None
        _, attempt = attempt_of(worker) or ("", 0)
        code = {"Program": 1, "Configuration": 78, "Infrastructure": 75}[failure_class]
        message = Termination(
            stage=stage, attempt=attempt, outcome="Failed", failure_class=failure_class,
            reason=reason, message="it went wrong",
        )  # fmt: skip
        for name, pod in self.pods.items():
            if self._is_of(pod, worker):
                self.end(name, code, message)

    def collect(self, spared: str = "") -> None:
        """The garbage collector and the kubelets: pods without their owner go, but for one."""
        alive = {c["metadata"]["uid"] for c in self.children.values()}
        self.pods = {
            n: p
            for n, p in self.pods.items()
            if n == spared or p["metadata"]["ownerReferences"][0]["uid"] in alive
        }
        self.tick()

    def walk_to(self, stage: Stage) -> None:
        """Runs the stages before this one, and this one's services, until its worker is there."""
        self.tick()
        for earlier in Stage:
            if not any(s["name"] == earlier.value for s in self.status["stages"]):
                continue
            if self.stage(earlier)["phase"] == "Succeeded":
                continue
            if earlier in (Stage.RL, Stage.EVALUATE):
                self.serve()
            if earlier is stage:
                return
            self.run()
            self.succeed(earlier)

    @staticmethod
    def _is_of(pod: Mapping[str, Any], worker: Mapping[str, Any]) -> bool:
        return pod["metadata"]["ownerReferences"][0]["uid"] == worker["metadata"]["uid"]


def starting(stage: Stage, **spec: Any) -> Simulation:
    """A job whose stage has just begun: its servers, or its worker, are made, and no pod."""
    simulation = Simulation(example_spec(**spec))
    simulation.tick()
    for earlier in Stage:
        if earlier is stage:
            return simulation
        simulation.serve()
        simulation.run()
        simulation.succeed(earlier)
    raise AssertionError(stage)


def at_work(stage: Stage, **spec: Any) -> Simulation:
    """A job whose stage runs."""
    simulation = starting(stage, **spec)
    simulation.serve()
    simulation.run()
    assert simulation.stage(stage)["phase"] == "Running"
    return simulation
