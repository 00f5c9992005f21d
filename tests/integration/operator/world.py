# SPDX-License-Identifier: Apache-2.0
"""A namespace on a real API server in which the tests play what kubelets and controllers do:
they write the status of children, and delete what the garbage collector would."""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from r1reward_api.constants import LABEL_ATTEMPT, LABEL_JOB, LABEL_STAGE, Stage
from r1reward_api.wire.termination import BriefOutput, Termination
from r1reward_operator.app import Operator
from r1reward_operator.kube.client import KubeClient, Resource
from r1reward_operator.kube.clock import Clock
from r1reward_operator.kube.resources import (
    DEPLOYMENTS,
    JOBS,
    PODS,
    PYTORCHJOBS,
)
from r1reward_operator.resources import CHILDREN, R1REWARDJOBS, R1REWARDRUNTIMES
from r1reward_operator.settings import OperatorSettings
from tests.clock import ShiftedClock
from tests.integration.operator.line import Line

JOB_FILE = Path("tests/e2e/manifests/digits/job.yaml")
RUNTIME_FILE = Path("tests/e2e/manifests/digits/runtime.yaml")
OUTPUTS = {
    Stage.PREPARE: ("model", "train", "heldout", "quality"),
    Stage.ANNOTATE: ("sft", "rl"),
    Stage.SFT: ("weights", "metrics"),
    Stage.RL: ("weights", "metrics"),
    Stage.EVALUATE: ("predictions", "report"),
}
WORKERS = {Stage.SFT: PYTORCHJOBS, Stage.RL: PYTORCHJOBS}
CODE = {stage.value: stage.value * 4 for stage in Stage}
T = TypeVar("T")


def digest(text: str) -> str:
    """A digest that looks like one."""
    return "sha256:" + (text.encode().hex() * 64)[:64]


class World:
    """One namespace, one operator, and what the tests do in it.

    Args:
        client: an administrator's.
        operator_client: the operator's.
        namespace: of the test's own.
    """

    def __init__(self, client: KubeClient, operator_client: KubeClient, namespace: str) -> None:
        self.client = client
        self._operator_client = operator_client
        self.line = Line(operator_client)
        self.clock = ShiftedClock()
        self.namespace = namespace
        self.operator: Operator | None = None

    # --- the operator

    def start_operator(self) -> None:
        """Starts an operator that serves this namespace only."""
        self.operator = self.new_operator(leader_elect=False)
        self.operator.start()

    def new_line(self) -> Line:
        """A line of its own for another operator."""
        return Line(self._operator_client)

    def new_operator(
        self, leader_elect: bool, line: Line | None = None, clock: Clock | None = None
    ) -> Operator:
        """An operator of this namespace that is not started yet.

        Args:
            leader_elect: whether it competes for the lease.
            line: its way to the API server; the world's where not given.
            clock: its time; the world's where not given.
        """
        settings = OperatorSettings(
            watch_namespace=self.namespace,
            host="127.0.0.1",
            metrics_port=0,
            progress_port=0,
            leader_elect=leader_elect,
            progress_url="http://progress.example:8082",
        )
        return Operator(settings, KubeClient(line or self.line), clock or self.clock)

    def stop_operator(self) -> None:
        """Stops it."""
        if self.operator is not None:
            self.operator.stop()
            self.operator = None

    def passes(self) -> float:
        """How often the operator has looked at jobs since it was started."""
        assert self.operator is not None
        samples = [
            s.value
            for metric in self.operator.metrics.registry.collect()
            for s in metric.samples
            if s.name == "r1reward_reconcile_total"
        ]
        return sum(samples)

    def writes(self) -> int:
        """How many writes of the operator the API server has taken in."""
        return len(self.line.written)

    def settle(self) -> None:
        """Waits until the operator has looked at the jobs again."""
        before = self.passes()
        assert self.operator is not None
        self.operator.resync()
        self.eventually("another pass", lambda: self.passes() > before)

    # --- reading

    def eventually(self, what: str, look: Callable[[], T | None], seconds: float = 30.0) -> T:
        """What `look` finds, as soon as it finds something."""
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not (found := look()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            pause.wait(0.05)
        return found

    def get(self, resource: Resource, name: str) -> dict[str, Any] | None:
        """An object of the namespace."""
        return self.client.get(resource, self.namespace, name)

    def job(self, name: str) -> dict[str, Any]:
        """The R1RewardJob."""
        found = self.get(R1REWARDJOBS, name)
        assert found is not None
        return found

    def stage(self, name: str, stage: Stage) -> dict[str, Any]:
        """A stage's status; empty while there is none."""
        stages = self.job(name).get("status", {}).get("stages", [])
        return next((s for s in stages if s["name"] == stage.value), {})

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """A condition; empty while there is none."""
        conditions = self.job(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def wait_phase(self, name: str, stage: Stage, phase: str, attempt: int) -> dict[str, Any]:
        """Waits until a stage's attempt is in a phase."""

        def look() -> dict[str, Any] | None:
            found = self.stage(name, stage)
            reached = (found.get("phase"), found.get("attempt")) == (phase, attempt)
            return found if reached else None

        return self.eventually(f"{stage} {attempt} {phase}", look)

    def everything(self, name: str) -> dict[str, str]:
        """Resource version of the job and of every child."""
        versions = {}
        for resource in (R1REWARDJOBS, *CHILDREN.values()):
            for item in self.client.list(resource, self.namespace)["items"]:
                versions[f"{resource}/{item['metadata']['name']}"] = item["metadata"][
                    "resourceVersion"
                ]
        return versions

    # --- what users do

    def create(self, name: str, **changes: Any) -> None:
        """Creates the example job with other spec fields; None leaves a field out."""
        job = yaml.safe_load(JOB_FILE.read_text())
        job["metadata"] = {"name": name, "namespace": self.namespace}
        job["spec"] = {k: v for k, v in {**job["spec"], **changes}.items() if v is not None}
        self.client.create(R1REWARDJOBS, job)

    def change(self, name: str, spec: Mapping[str, Any]) -> None:
        """Merges into a job's spec."""
        self.client.patch(R1REWARDJOBS, self.namespace, name, {"spec": spec})

    # --- what controllers and kubelets do

    def serve(self, name: str, stage: Stage, attempt: int = 1) -> list[str]:
        """Makes all Deployments of an attempt ready. Returns their names."""
        prefix = f"{name}-{stage}-{attempt}-"
        wanted = {Stage.RL: 2, Stage.EVALUATE: 1}[stage]

        def look() -> list[dict[str, Any]] | None:
            items = self.client.list(DEPLOYMENTS, self.namespace)["items"]
            found = [d for d in items if d["metadata"]["name"].startswith(prefix)]
            return found if len(found) == wanted else None

        for deployment in self.eventually(f"Deployments of {prefix}", look):
            self.make_server(deployment)
            self.make_ready(deployment)
        return [d["metadata"]["name"] for d in look() or []]

    def make_server(self, deployment: Mapping[str, Any]) -> None:
        """Creates one pod of a Deployment."""
        template = deployment["spec"]["template"]
        pod = {
            "metadata": {
                "name": f"{deployment['metadata']['name']}-0",
                "namespace": self.namespace,
                "labels": template["metadata"]["labels"],
            },
            "spec": {"serviceAccountName": "default", **template["spec"]},
        }
        self.client.create(PODS, pod)

    def make_ready(self, deployment: Mapping[str, Any]) -> None:
        """Writes the status of a Deployment whose pods are ready."""
        replicas = deployment["spec"]["replicas"]
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
            "availableReplicas": replicas,
        }
        name = deployment["metadata"]["name"]
        self.client.patch_status(DEPLOYMENTS, self.namespace, name, status, None)

    def run(self, name: str, stage: Stage, attempt: int = 1) -> list[str]:
        """Makes the pods of an attempt's worker, running. Returns their names."""
        resource = WORKERS.get(stage, JOBS)
        worker_name = f"{name}-{stage}-{attempt}"
        worker = self.eventually(worker_name, lambda: self.get(resource, worker_name))
        if resource is PYTORCHJOBS:
            template = worker["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
            count = worker["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"]
            names = [f"{worker_name}-worker-{i}" for i in range(count)]
        else:
            template = worker["spec"]["template"]
            names = [f"{worker_name}-abcde"]
        for index, pod_name in enumerate(names):
            self.make_pod(resource, worker, template, pod_name, index)
        return names

    def make_pod(
        self,
        resource: Resource,
        worker: Mapping[str, Any],
        template: Mapping[str, Any],
        name: str,
        index: int,
    ) -> None:
        """Creates a pod of a worker and lets it run."""
        labels = {**template["metadata"]["labels"]}
        if resource is PYTORCHJOBS:
            labels["training.kubeflow.org/replica-index"] = str(index)
            labels["training.kubeflow.org/job-name"] = worker["metadata"]["name"]
        owner = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "name": worker["metadata"]["name"],
            "uid": worker["metadata"]["uid"],
            "controller": True,
        }
        pod = {
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": labels,
                "ownerReferences": [owner],
            },
            # In a cluster an admission plug-in fills it in; here none is.
            "spec": {"serviceAccountName": "default", **template["spec"]},
        }
        self.client.create(PODS, pod)
        self.pod_status(name, {"phase": "Running"})

    def pod_status(self, name: str, status: Mapping[str, Any]) -> None:
        """Merges into a pod's status."""
        self.client.patch_status(PODS, self.namespace, name, status, None)

    def end_pod(self, name: str, container: str, code: int, message: str) -> None:
        """Ends a pod's container."""
        now = rfc3339()
        ended = {"exitCode": code, "message": message, "startedAt": now, "finishedAt": now}
        status = {
            "name": container,
            "image": "x",
            "imageID": "x",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        phase = "Failed" if code else "Succeeded"
        self.pod_status(name, {"phase": phase, "containerStatuses": [status]})

    def succeed(
        self,
        name: str,
        stage: Stage,
        attempt: int = 1,
        **told: Any,
    ) -> None:
        """Ends an attempt's worker with success, as its pods and its controller report it."""
        resource = WORKERS.get(stage, JOBS)
        worker_name = f"{name}-{stage}-{attempt}"
        container = "pytorch" if resource is PYTORCHJOBS else "r1"
        message = Termination(
            stage=stage,
            attempt=attempt,
            outcome="Succeeded",
            key=told.pop("key", "a" * 64 if stage is Stage.PREPARE else self.key(name, stage)),
            run=f"runs/{self.job(name)['metadata']['uid']}/attempt-{attempt}",
            outputs={
                o: BriefOutput(digest=digest(f"{name}{stage}{o}"), bytes=7) for o in OUTPUTS[stage]
            },
            code=CODE if stage is Stage.PREPARE else {},
            **told,
        ).encode()
        for pod in self.pods(name, stage, attempt):
            self.end_pod(pod, container, 0, message)
        now = rfc3339()
        if resource is PYTORCHJOBS:
            done = {"type": "Succeeded", "status": "True", "reason": "Done", "message": "",
                    "lastTransitionTime": now, "lastUpdateTime": now}  # fmt: skip
            self.client.patch_status(
                resource, self.namespace, worker_name, {"conditions": [done]}, None
            )
        else:
            conditions = [
                {"type": t, "status": "True", "lastTransitionTime": now}
                for t in ("SuccessCriteriaMet", "Complete")
            ]
            self.client.patch_status(
                resource,
                self.namespace,
                worker_name,
                {"startTime": now, "completionTime": now, "succeeded": 1,
                 "conditions": conditions},
                None,
            )  # fmt: skip

    def key(self, name: str, stage: Stage) -> str | None:
        """A stage's key as its status has it."""
        return self.stage(name, stage).get("key")

    def pods(self, name: str, stage: Stage, attempt: int) -> list[str]:
        """Names of an attempt's pods."""
        selector = f"{LABEL_JOB}={name},{LABEL_STAGE}={stage},{LABEL_ATTEMPT}={attempt}"
        items = self.client.list(PODS, self.namespace, selector)["items"]
        return [i["metadata"]["name"] for i in items]

    def pod_token(self, pod: str, audience: str) -> str:
        """A service-account token that is bound to a pod, as the kubelet projects it."""
        found = self.get(PODS, pod)
        assert found is not None
        accounts = Resource("", "v1", "serviceaccounts", "ServiceAccount")
        self.client.apply(
            accounts, {"metadata": {"name": "default", "namespace": self.namespace}}, "tests"
        )
        reference = {"apiVersion": "v1", "kind": "Pod", "name": pod,
                     "uid": found["metadata"]["uid"]}  # fmt: skip
        answer = self.client.post(
            accounts.path(self.namespace, "default", "token"),
            {"spec": {"audiences": [audience], "boundObjectRef": reference}},
        )
        return answer["status"]["token"]

    def post_progress(self, job: str, token: str, report: Mapping[str, Any]) -> int:
        """Reports progress as a pod does. Returns the HTTP status."""
        assert self.operator is not None
        port = self.operator.progress_server.port
        return httpx.post(
            f"http://127.0.0.1:{port}/v1/progress/{self.namespace}/{job}",
            json=dict(report),
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
        ).status_code

    def copy_runtime(self, name: str) -> None:
        """Creates an R1RewardRuntime of the namespace like the cluster's."""
        runtime = yaml.safe_load(RUNTIME_FILE.read_text())
        metadata = {"name": name, "namespace": self.namespace}
        copy = {**runtime, "kind": R1REWARDRUNTIMES.kind, "metadata": metadata}
        self.client.create(R1REWARDRUNTIMES, copy)

    def delete_pod(self, name: str) -> None:
        """Deletes a pod at once, as when its kubelet has confirmed."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        self.client._call("DELETE", PODS.path(self.namespace, name), body=body)


def rfc3339() -> str:
    """Now."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
