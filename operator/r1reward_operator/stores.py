# SPDX-License-Identifier: Apache-2.0
"""What the operator keeps in memory, and by what it is found."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from r1reward_api.constants import LABEL_JOB, LABEL_JOB_UID
from r1reward_operator.kube.client import JsonObject, Resource
from r1reward_operator.kube.resources import PODS
from r1reward_operator.kube.store import Store
from r1reward_operator.resources import (
    CHILDREN,
    CLUSTERR1REWARDRUNTIMES,
    R1REWARDJOBS,
    R1REWARDRUNTIMES,
)

BY_OWNER = "owner"
BY_JOB = "job"
BY_UID = "uid"
BY_RUNTIME = "runtime"

_POD_SPEC = ("nodeName", "readinessGates", "serviceAccountName")
_POD_STATUS = (
    "phase",
    "startTime",
    "reason",
    "message",
    "conditions",
    "initContainerStatuses",
    "containerStatuses",
)


@dataclass(frozen=True)
class Stores:
    """One store a resource."""

    jobs: Store = field(default_factory=lambda: Store({BY_RUNTIME: runtime_key}))
    runtimes: Store = field(default_factory=Store)
    cluster_runtimes: Store = field(default_factory=Store)
    pods: Store = field(default_factory=lambda: Store({BY_JOB: _job_uid, BY_UID: _uid}, slim_pod))
    children: dict[Resource, Store] = field(
        default_factory=lambda: {r: Store({BY_OWNER: _owner_uid}) for r in CHILDREN.values()}
    )

    def by_resource(self) -> dict[Resource, Store]:
        """Every store."""
        return {
            R1REWARDJOBS: self.jobs,
            R1REWARDRUNTIMES: self.runtimes,
            CLUSTERR1REWARDRUNTIMES: self.cluster_runtimes,
            PODS: self.pods,
            **self.children,
        }


def slim_pod(pod: JsonObject) -> JsonObject:
    """A pod without what no plan looks at: most of it."""
    metadata = pod["metadata"]
    keep = (
        "name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences",
        "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "finalizers",
    )  # fmt: skip
    return {
        "kind": pod.get("kind", "Pod"),
        "metadata": {k: metadata[k] for k in keep if k in metadata},
        "spec": _only(pod.get("spec"), _POD_SPEC),
        "status": _only(pod.get("status"), _POD_STATUS),
    }


def runtime_key(job: JsonObject) -> Iterable[str]:
    """Index key of the runtime that a job names."""
    ref = (job.get("spec") or {}).get("runtimeRef") or {}
    kind = ref.get("kind", "ClusterR1RewardRuntime")
    namespace = job["metadata"].get("namespace", "") if kind == "R1RewardRuntime" else ""
    return (runtime_index(kind, namespace, ref.get("name", "")),)


def runtime_index(kind: str, namespace: str, name: str) -> str:
    """As `runtime_key`, of a runtime itself."""
    return f"{kind}/{namespace}/{name}"


def owner_of(obj: JsonObject) -> JsonObject | None:
    """The controller among an object's owners."""
    references = obj["metadata"].get("ownerReferences") or ()
    return next((r for r in references if r.get("controller")), None)


def job_of(pod: JsonObject) -> str | None:
    """Name of the job on a pod's labels."""
    return (pod["metadata"].get("labels") or {}).get(LABEL_JOB)


def _owner_uid(obj: JsonObject) -> Iterable[str]:
    owner = owner_of(obj)
    return () if owner is None else (owner["uid"],)


def _job_uid(pod: JsonObject) -> Iterable[str]:
    uid = (pod["metadata"].get("labels") or {}).get(LABEL_JOB_UID)
    return () if uid is None else (uid,)


def _uid(obj: JsonObject) -> Iterable[str]:
    return (obj["metadata"]["uid"],)


def _only(value: Any, keys: Iterable[str]) -> JsonObject:
    return {k: value[k] for k in keys if k in value} if value else {}
