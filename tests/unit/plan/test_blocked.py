# SPDX-License-Identifier: Apache-2.0
"""What is in the way, by its cause, its place and its remedy."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from r1reward_api.wire.progress import Progress
from r1reward_operator.plan.blocked import (
    blocked_by_pods,
    blocked_by_silence,
    blocked_by_storage,
    blocked_by_workloads,
)

NOW = datetime(2026, 1, 2, 3, 10, 0, tzinfo=UTC)
JUST_NOW = "2026-01-02T03:09:41Z"
LATELY, LONG_AGO = "2026-01-02T03:09:30Z", "2026-01-02T03:08:59Z"


def waiting(reason: str, message: str = "", kind: str = "containerStatuses", **more: Any) -> dict:
    container = {
        "name": "r1", "image": "r1/trainer:typo",
        "state": {"waiting": {"reason": reason, "message": message}}, **more,
    }  # fmt: skip
    return {"phase": "Pending", kind: [container]}


def scheduled(status: str, reason: str = "", message: str = "", at: str = LONG_AGO) -> dict:
    return {
        "type": "PodScheduled", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": at,
    }  # fmt: skip


def pod(status: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


CRASHED: dict[str, Any] = {
    "lastState": {"terminated": {"exitCode": 78, "message": "bucket: access denied"}}
}
NO_NODE = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
NO_CLAIM = 'persistentvolumeclaim "models" not found'
PODS = {
    "ImagePull": (waiting("ImagePullBackOff", "not found"), "r1/trainer:typo cannot be pulled"),
    "ImagePull, of an init container": (
        waiting("ErrImagePull", kind="initContainerStatuses"), "container r1",
    ),
    "Dependency": (
        waiting("CreateContainerConfigError", 'secret "s3" not found'), 'secret "s3" not found',
    ),
    "Dependency, as a kubelet says it that asks the API server": (
        waiting("CreateContainerConfigError", 'secrets "s3" not found'), "in the job's namespace",
    ),
    "ContainerConfig": (
        waiting("CreateContainerConfigError", "couldn't find key k in Secret n/s3"), "key k",
    ),
    "CrashLoop": (waiting("CrashLoopBackOff", **CRASHED), "exit code 78: bucket: access denied"),
    "Unschedulable": (
        {"phase": "Pending", "conditions": [scheduled("False", "Unschedulable", NO_NODE)]}, NO_NODE,
    ),
    "Storage, of a claim": (
        {"phase": "Pending", "conditions": [scheduled("False", "Unschedulable", NO_CLAIM)]},
        NO_CLAIM,
    ),
    "Queued": (
        {"phase": "Pending", "conditions": [scheduled("False", "SchedulingGated")]}, "queue",
    ),
    "Storage, of a mount": (
        {**waiting("ContainerCreating"), "conditions": [scheduled("True")]}, "cannot be mounted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PODS)
def test_a_pod_is_blocked_by(case: str):
    status, text = PODS[case]
    found = blocked_by_pods([pod(status)], NOW)
    assert found is not None
    assert found.reason == case.split(",")[0]
    assert text in found.message
    assert "pod p" in found.message


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Running"},
        waiting("PodInitializing"),
        {**waiting("ContainerCreating"), "conditions": [scheduled("True", at=LATELY)]},
        {"phase": "Pending", "startTime": LATELY, "conditions": [scheduled("True", at=LATELY)]},
    ],
)
def test_a_pod_that_only_takes_its_time_is_not_blocked(status: dict[str, Any]):
    assert blocked_by_pods([pod(status)], NOW) is None


def test_a_pod_on_its_way_out_blocks_nothing():
    going = pod(waiting("ImagePullBackOff"))
    going["metadata"]["deletionTimestamp"] = LATELY
    assert blocked_by_pods([going], NOW) is None


def workload(kind: str, created: str = LONG_AGO, **fields: Any) -> dict[str, Any]:
    metadata = {"name": "w", "uid": "u", "creationTimestamp": created, "labels": {}}
    spec = {"pytorchReplicaSpecs": {"Worker": {"replicas": 2}}} if kind == "PyTorchJob" else {}
    return {"kind": kind, "metadata": metadata, "spec": spec, **fields}


def refused(message: str) -> dict[str, Any]:
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    return workload("Deployment", status={"conditions": [condition]})


QUEUED = workload("PyTorchJob", LATELY, spec={"runPolicy": {"suspend": True}})
QUEUED["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
WORKLOADS = {
    "Quota": (refused("pods x is forbidden: exceeded quota: team"), "exceeded quota"),
    "Admission": (refused("violates PodSecurity restricted"), "PodSecurity"),
    "Queued": (QUEUED, "queue gpus"),
    "Dependency": (workload("Job"), "the Job controller does not run"),
    "Quota, of a PyTorchJob that tells nothing": (
        workload("PyTorchJob"), "PyTorchJob w lacks pods: a ResourceQuota",
    ),
    "Quota, of a Job": (
        workload("Job", status={"startTime": LONG_AGO}), "ServiceAccount, PriorityClass",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WORKLOADS)
def test_a_workload_is_blocked_by(case: str):
    found_workload, text = WORKLOADS[case]
    found = blocked_by_workloads([found_workload], [], NOW)
    assert found is not None
    assert found.reason == case.split(",")[0]
    assert text in found.message


OWNED: dict[str, Any] = {"metadata": {"name": "p", "ownerReferences": [{"uid": "u"}]}}


def test_a_pytorchjob_of_which_only_some_pods_are_there_was_refused_the_others():
    found = blocked_by_workloads([workload("PyTorchJob")], [OWNED], NOW)
    assert found is not None
    assert found.reason == "Quota"
    assert "PyTorchJob w lacks pods" in found.message


def test_a_worker_that_has_ended_lacks_no_pods():
    for end in ("Complete", "Failed"):
        status = {"startTime": LONG_AGO, "conditions": [{"type": end, "status": "True"}]}
        assert blocked_by_workloads([workload("Job", status=status)], [], NOW) is None


def test_a_workload_with_its_pods_or_of_late_is_not_blocked():
    assert blocked_by_workloads([workload("PyTorchJob")], [OWNED, OWNED], NOW) is None
    assert blocked_by_workloads([workload("PyTorchJob", JUST_NOW)], [], NOW) is None
    assert blocked_by_workloads([workload("Deployment")], [], NOW) is None


def test_silence_is_that_of_the_current_attempt_after_its_first_report():
    report = Progress(stage="rl", attempt=2, heartbeat="2026-01-02T03:00:00Z")
    found = blocked_by_silence(report, "rl", 2, NOW)
    assert found is not None
    assert found.reason == "NoProgress"
    assert blocked_by_silence(report, "rl", 3, NOW) is None
    assert blocked_by_silence(None, "rl", 2, NOW) is None
    fresh = report.model_copy(update={"heartbeat": "2026-01-02T03:00:01Z"})
    assert blocked_by_silence(fresh, "rl", 2, NOW) is None
    lately, long_ago = NOW - timedelta(seconds=599), NOW - timedelta(seconds=600)
    assert blocked_by_silence(report, "rl", 2, NOW, lately) is None, "nobody listened"
    assert blocked_by_silence(report, "rl", 2, NOW, long_ago) is not None
    nonsense = report.model_copy(update={"heartbeat": "yesterday"})
    assert blocked_by_silence(nonsense, "rl", 2, NOW) is None


def test_storage_that_does_not_answer_the_stage_blocks_in_the_stages_words_while_it_lasts():
    report = Progress(
        stage="prepare", attempt=2, heartbeat="2026-01-02T03:00:00Z",
        waiting_for="storage https://s3 does not work: its name does not resolve",
    )  # fmt: skip
    found = blocked_by_storage(report, "prepare", 2)
    assert found is not None
    assert found.reason == "StorageUnavailable"
    assert "stage prepare: storage https://s3 does not work: its name does" in found.message
    assert "AWS_ENDPOINT_URL" in found.message
    assert blocked_by_storage(report, "prepare", 3) is None
    assert blocked_by_storage(report, "sft", 2) is None
    works = report.model_copy(update={"waiting_for": None})
    assert blocked_by_storage(works, "prepare", 2) is None
    assert blocked_by_storage(None, "prepare", 2) is None
