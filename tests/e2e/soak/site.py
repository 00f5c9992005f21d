# SPDX-License-Identifier: Apache-2.0
"""Where faults happen: one namespace of the local cluster, as kubectl shows it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1reward_api.constants import LABEL_JOB, LABEL_ROLE, Role
from tests.e2e import digits_job
from tests.e2e.connection import Connection
from tests.e2e.kubectl import Kubectl

OPERATOR = "app.kubernetes.io/name=r1reward-operator"
KINDS = (
    "pods,services,deployments,replicasets,jobs,pytorchjobs,secrets,configmaps,networkpolicies,"
    "controllerrevisions"
)
"""Every kind that a job makes, or has made for it."""


def require_local_cluster() -> None:
    """Faults reach below Kubernetes: to processes of the machine.

    Raises:
        RuntimeError: when CLUSTER is not local.
    """
    if os.environ.get("CLUSTER", "local") != "local":
        raise RuntimeError("faults need the local cluster: unset CLUSTER, or set CLUSTER=local")


@dataclass(frozen=True)
class Site:
    """One namespace of a cluster with the operator.

    Attributes:
        connection: to cluster and object store.
        namespace: of the jobs.
    """

    connection: Connection
    namespace: str

    @property
    def kubectl(self) -> Kubectl:
        """kubectl against the cluster."""
        return self.connection.kubectl

    def get(self, job: str) -> dict[str, Any] | None:
        """The job; None when there is none."""
        found = self.kubectl.run(
            "-n", self.namespace, "get", "r1rj", job, "--ignore-not-found", "-o", "json"
        )
        return json.loads(found) if found.strip() else None

    def status(self, job: str) -> dict[str, Any]:
        """The job's status; empty while it has none."""
        return (self.get(job) or {}).get("status", {})

    def apply(self, *objects: dict[str, Any]) -> None:
        """`kubectl apply` into the namespace."""
        self.kubectl.apply(*objects, namespace=self.namespace)

    def delete(self, job: str) -> None:
        """Deletes the job and waits until it is gone."""
        self.kubectl.run(
            "-n", self.namespace, "delete", "r1rj", job, "--ignore-not-found", "--timeout=120s"
        )

    def suspend(self, job: str, suspended: bool) -> None:
        """Sets spec.suspend."""
        patch = json.dumps({"spec": {"suspend": suspended}})
        self.kubectl.run(
            "-n", self.namespace, "patch", "r1rj", job, "--type=merge", "-p", patch
        )  # fmt: skip

    def objects(self, job: str) -> list[dict[str, Any]]:
        """Everything in the namespace that carries the job's name in front of its own: also what
        the training operator makes, which has no label of the job."""
        found = self.kubectl.json("-n", self.namespace, "get", KINDS)
        return [o for o in found["items"] if o["metadata"]["name"].startswith(f"{job}-")]

    def running_pods(self, jobs: Sequence[str], role: Role | None = None) -> list[dict[str, Any]]:
        """The jobs' running pods that nobody has deleted, by name.

        Args:
            jobs: names.
            role: None for any.
        """
        selector = f"{LABEL_JOB} in ({','.join(jobs)})"
        if role is not None:
            selector += f",{LABEL_ROLE}={role.value}"
        found = self.kubectl.json("-n", self.namespace, "get", "pods", "-l", selector)
        return _running(found["items"])

    def operator_pods(self) -> list[dict[str, Any]]:
        """The operator's running pods, the leader first."""
        where = ("-n", digits_job.SYSTEM_NAMESPACE, "get")
        lease = self.kubectl.json(*where, "lease", "r1reward-operator")
        holder = lease["spec"].get("holderIdentity") or ""
        pods = _running(self.kubectl.json(*where, "pods", "-l", OPERATOR)["items"])
        return sorted(pods, key=lambda p: not holder.startswith(p["metadata"]["name"]))

    def evict(self, pod: str) -> None:
        """Evicts a pod as a drain does, by the Eviction API."""
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        self.kubectl.run("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))

    def break_teacher(self, seconds: float) -> None:
        """Lets teacher and judge answer 500 for so many seconds."""
        path = (
            f"/api/v1/namespaces/{digits_job.NAMESPACE}/services/digits-teacher:8000/proxy"
            f"/outage?seconds={seconds:g}"
        )
        self.kubectl.run("create", "--raw", path, "-f", "-", stdin="{}")


def _running(pods: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [
        p
        for p in pods
        if p["status"].get("phase") == "Running" and not p["metadata"].get("deletionTimestamp")
    ]
    return sorted(found, key=lambda p: p["metadata"]["name"])
