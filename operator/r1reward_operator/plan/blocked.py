# SPDX-License-Identifier: Apache-2.0
"""What is in the way of an attempt, read from its pods and workloads.

Waiting is not failing: each cause names the object and the remedy, and goes when the
object recovers. Checks run in the order below; the first that finds something speaks.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from r1reward_api.constants import LABEL_QUEUE
from r1reward_api.reasons import Reason
from r1reward_api.wire.progress import Progress
from r1reward_api.wire.termination import Termination
from r1reward_operator.observed import attempt_of, condition, is_true
from r1reward_operator.plan.attempt import finished, node_is_lost
from r1reward_operator.plan.last_words import last_words
from r1reward_operator.plan.model import Blocked, JsonObject
from r1reward_operator.plan.pods import deletion_began
from r1reward_operator.plan.times import parse_time, seconds_since

MOUNT_SECONDS = 60.0
"""A container that is still being created after this long waits for a volume."""
TAKE_UP_SECONDS = 20.0
"""A kubelet takes a pod up within a second or two of its scheduling, whatever it then waits for."""
NO_PODS_SECONDS = 20.0
"""A workload without pods after this long is refused them: a Job has no condition that says so,
and its controller makes pods within a second or two."""
ENDING_SECONDS = 30.0
"""A pod that is still there so long after it was let go is in the way."""
HEARTBEAT_SECONDS = 600.0
"""A stage reports at least every 30 seconds; after this long something hangs."""

_IMAGE = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull",
     "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"}
)  # fmt: skip
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_ABSENT = re.compile(r'(secret|configmap)s? ".*" not found$')  # by how the kubelet reads them
_QUOTA = re.compile(r"exceeded quota|failed quota|(maximum|minimum) .* usage per |LimitRange")
_CLAIM = re.compile(r"persistentvolumeclaim|PersistentVolumeClaim|volume node affinity")


def blocked_by_pods(pods: Iterable[JsonObject], now: datetime) -> Blocked | None:
    """What holds up a pod: image, container, crash, scheduling, volume, node."""
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp") or _is_over(pod):
            continue
        found = _container(pod) or _scheduling(pod) or _mounting(pod, now) or _node(pod, now)
        if found is not None:
            return found
    return None


def blocked_by_workloads(
    workloads: Sequence[JsonObject], pods: Sequence[JsonObject], now: datetime
) -> Blocked | None:
    """What keeps a Deployment, Job or PyTorchJob from having pods.

    Args:
        workloads: the attempt's, as they are.
        pods: all pods of the attempt.
        now: the time.
    """
    for workload in workloads:
        found = _queued(workload) or _refused(workload) or _podless(workload, pods, now)
        if found is not None:
            return found
    return None


def untaken_seconds(pod: JsonObject, now: datetime) -> float | None:
    """How long a pod that has a node may still wait for its kubelet before the node is taken for
    lost; None when it has none, or has been taken up. Nobody else says that of such a pod: what the
    node controller takes back is only that a pod is ready."""
    status = pod.get("status") or {}
    if status.get("phase") != "Pending" or pod["metadata"].get("deletionTimestamp"):
        return None
    if any(status.get(k) for k in ("startTime", "initContainerStatuses", "containerStatuses")):
        return None
    scheduled = condition(pod, "PodScheduled")
    if scheduled is None or scheduled.get("status") != "True":
        return None
    waited = seconds_since(scheduled.get("lastTransitionTime"), now)
    return None if waited is None else TAKE_UP_SECONDS - waited


def podless_seconds(
    workload: JsonObject, pods: Sequence[JsonObject], now: datetime
) -> float | None:
    """How long a workload may still lack pods before that is an obstacle; None when it has all
    of them, has ended, or says itself why not."""
    if workload["kind"] == "Deployment" or finished(workload):
        return None
    if sum(_is_of(p, workload) for p in pods) >= _wanted(workload):
        return None
    started = (workload.get("status") or {}).get("startTime")
    waited = seconds_since(started or workload["metadata"].get("creationTimestamp"), now)
    return None if waited is None else NO_PODS_SECONDS - waited


def blocked_by_old_pods(
    pods: Iterable[JsonObject], released: datetime | None, now: datetime
) -> tuple[Blocked | None, float | None]:
    """Pods of an earlier attempt or stage that should be gone, and hold what the next one needs.

    Args:
        pods: those that are waited for.
        released: when their stage or attempt ended, as far as that is known; it counts for
            pods that nobody has deleted yet.
        now: the time.

    Returns:
        What is in the way, or the seconds after which it will be.
    """
    left: float | None = None
    for pod in pods:
        since = deletion_began(pod) or released
        if since is None:
            continue
        seconds = ENDING_SECONDS - (now - since).total_seconds()
        if seconds <= 0:
            return _still_there(pod), None
        left = seconds if left is None else min(left, seconds)
    return None, left


def blocked_by_storage(progress: Progress | None, stage: str, attempt: int) -> Blocked | None:
    """Object storage that does not answer the stage, as it says itself."""
    if progress is None or (progress.stage, progress.attempt) != (stage, attempt):
        return None
    if not progress.waiting_for:
        return None
    return Blocked(
        Reason.STORAGE_UNAVAILABLE,
        f"stage {stage}: {progress.waiting_for}, and then by the next attempt; check "
        "AWS_ENDPOINT_URL in the Secret of spec.storage.secretRef, the network policy and the "
        "store itself",
    )


def blocked_by_silence(
    progress: Progress | None,
    stage: str,
    attempt: int,
    now: datetime,
    listening_since: datetime | None = None,
) -> Blocked | None:
    """A heartbeat that has stopped. Only a stage that has reported once can fall silent.

    Args:
        progress: the last report.
        stage, attempt: which run.
        now: the time.
        listening_since: when the operator began to take reports: what was sent to nobody is no
            silence. None: long ago.
    """
    if progress is None or (progress.stage, progress.attempt) != (stage, attempt):
        return None
    try:
        heard = parse_time(progress.heartbeat)
    except ValueError:
        return None
    if (now - max(heard, listening_since or heard)).total_seconds() < HEARTBEAT_SECONDS:
        return None
    return Blocked(
        Reason.NO_PROGRESS,
        f"stage {stage} has not reported since {progress.heartbeat}; look at its logs, and set "
        "spec.policy.activeDeadlineSeconds to have a hanging attempt ended",
    )


def not_served(kind: str) -> Blocked:
    """A kind of worker that the API server does not know."""
    return Blocked(
        Reason.DEPENDENCY,
        f"the API server does not know {kind}: install the Kubeflow training operator",
    )


def refusal(text: str) -> Reason:
    """Which cause a refusal's text means."""
    return Reason.QUOTA if _QUOTA.search(text) else Reason.ADMISSION


def _container(pod: JsonObject) -> Blocked | None:
    status = pod.get("status") or {}
    statuses = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for container in statuses:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, text = waiting.get("reason", ""), waiting.get("message", "")
        where = f"pod {_name(pod)}, container {container.get('name')}"
        if reason in _IMAGE:
            return Blocked(
                Reason.IMAGE_PULL,
                f"{where}: image {container.get('image', '')} cannot be "
                f"pulled ({reason}: {text}); correct the image or its pull secret in the runtime",
            )
        if reason in _CONFIG and _ABSENT.match(text):
            return Blocked(
                Reason.DEPENDENCY,
                f"{where} waits: {text}; create it in the job's namespace",
            )
        if reason in _CONFIG:
            return Blocked(
                Reason.CONTAINER_CONFIG,
                f"{where}: {reason}: {text}; create the Secret or key that is named",
            )
        if reason == "CrashLoopBackOff":
            return Blocked(
                Reason.CRASH_LOOP, f"{where} ends again and again: {_last_words(container)}"
            )
    return None


def _scheduling(pod: JsonObject) -> Blocked | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled is None or scheduled.get("status") != "False":
        return None
    text = scheduled.get("message", "")
    if scheduled.get("reason") == "SchedulingGated":
        return Blocked(
            Reason.QUEUED, f"pod {_name(pod)} waits for its queue: {text or 'scheduling is gated'}"
        )
    if _CLAIM.search(text):
        return Blocked(
            Reason.STORAGE, f"pod {_name(pod)}: {text}; create or bind the claim that is named"
        )
    return Blocked(
        Reason.UNSCHEDULABLE,
        f"no node takes pod {_name(pod)}: {text}; free or add nodes, or change the role's "
        "resources, nodeSelector or tolerations",
    )


def _mounting(pod: JsonObject, now: datetime) -> Blocked | None:
    status = pod.get("status") or {}
    scheduled = condition(pod, "PodScheduled")
    if status.get("phase") != "Pending" or scheduled is None:
        return None
    if is_true(pod, "PodReadyToStartContainers"):
        return None  # its volumes are mounted: what takes long now is a large image
    statuses = status.get("initContainerStatuses") or status.get("containerStatuses") or ()
    if not statuses or not all(_is_being_made(c) for c in statuses):
        return None
    waited = seconds_since(scheduled.get("lastTransitionTime"), now)
    if waited is None or waited < MOUNT_SECONDS:
        return None
    return Blocked(
        Reason.STORAGE,
        f"pod {_name(pod)} has a node, but its containers are still being made: a volume "
        f"cannot be mounted or a Secret is missing; see `kubectl describe pod {_name(pod)}`",
    )


def _node(pod: JsonObject, now: datetime) -> Blocked | None:
    node = (pod.get("spec") or {}).get("nodeName", "")
    left = untaken_seconds(pod, now)
    if left is not None and left <= 0:
        return Blocked(
            Reason.NODE_LOST,
            f"node {node} has not taken up pod {_name(pod)}: its kubelet does not answer; look at "
            "the node, and delete the Node object of a machine that will not come back",
        )
    if not node_is_lost(pod):
        return None
    return Blocked(
        Reason.NODE_LOST,
        f"node {node} of pod {_name(pod)} does not answer; another pod takes its place when "
        "Kubernetes gives the node up, or at once when you delete the node",
    )


def _still_there(pod: JsonObject) -> Blocked:
    metadata = pod["metadata"]
    stage, attempt = attempt_of(pod) or ("", 0)
    node = (pod.get("spec") or {}).get("nodeName")
    place = "on no node" if node is None else f"on node {node}"
    where = f"pod {_name(pod)} of {stage}, attempt {attempt}, {place}"
    gone = metadata.get("deletionTimestamp")
    if gone is None:
        fate = (
            "belongs to nothing any more and nobody deletes it: look at the garbage collector of "
            f"the controller manager, or run `kubectl delete pod {_name(pod)}`"
        )
    elif metadata.get("finalizers"):
        fate = f"is kept by its finalizers {', '.join(metadata['finalizers'])}"
    else:
        fate = (
            f"was told to end by {gone} and is still there; two minutes after that it is no longer "
            "waited for. Look at its node, and delete the Node object of a machine that will not "
            "come back"
        )
    return Blocked(Reason.TERMINATING, f"{where}, {fate}")


def _is_over(pod: JsonObject) -> bool:
    """Whether the pod has ended: an evicted server's last state is nobody's obstacle."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _is_being_made(container: JsonObject) -> bool:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return waiting.get("reason") in ("ContainerCreating", "PodInitializing")


def _queued(workload: JsonObject) -> Blocked | None:
    spec = workload.get("spec") or {}
    suspended = spec.get("suspend") or (spec.get("runPolicy") or {}).get("suspend")
    queue = (workload["metadata"].get("labels") or {}).get(LABEL_QUEUE)
    if not suspended or queue is None:
        return None
    return Blocked(
        Reason.QUEUED,
        f"{workload['kind']} {_name(workload)} waits in queue {queue}; see `kubectl get workloads`",
    )


def _refused(workload: JsonObject) -> Blocked | None:
    failed = condition(workload, "ReplicaFailure")
    if failed is None or failed.get("status") != "True":
        return None
    text = failed.get("message", "")
    return Blocked(
        refusal(text), f"{workload['kind']} {_name(workload)} may not create its pods: {text}"
    )


def _podless(workload: JsonObject, pods: Sequence[JsonObject], now: datetime) -> Blocked | None:
    left = podless_seconds(workload, pods, now)
    if left is None or left > 0:
        return None
    kind, name = workload["kind"], _name(workload)
    refused = (
        f"{kind} {name} lacks pods: a ResourceQuota, a LimitRange or an admission policy refuses "
        "them, or a ServiceAccount, PriorityClass or RuntimeClass that they name does not exist; "
        f"see `kubectl describe {kind.lower()} {name}`"
    )
    if any(_is_of(p, workload) for p in pods) or "startTime" in (workload.get("status") or {}):
        return Blocked(Reason.QUOTA, refused)
    if kind == "PyTorchJob":
        # The training operator writes no status before it has made all pods. Its webhook has let
        # the PyTorchJob in, so that it most likely runs.
        return Blocked(
            Reason.QUOTA,
            f"{refused}. When that shows no events, the training operator does not run",
        )
    return Blocked(
        Reason.DEPENDENCY, f"nobody has taken up {kind} {name}: the Job controller does not run"
    )


def _wanted(worker: JsonObject) -> int:
    """How many pods a Job or PyTorchJob of ours has."""
    if worker["kind"] != "PyTorchJob":
        return 1
    return worker["spec"]["pytorchReplicaSpecs"]["Worker"].get("replicas", 1)


def _is_of(pod: JsonObject, workload: JsonObject) -> bool:
    references = pod["metadata"].get("ownerReferences") or ()
    return any(r.get("uid") == workload["metadata"]["uid"] for r in references)


def _last_words(container: JsonObject) -> str:
    end: Any = (container.get("lastState") or {}).get("terminated") or {}
    told = Termination.decode(end.get("message"))
    if told is not None:
        return f"{told.reason}: {told.message}"
    said = last_words(end)
    code = f"exit code {end.get('exitCode', 'unknown')}"
    if end.get("reason") == "OOMKilled":
        return f"{code}, OOMKilled: raise its memory limit in the runtime"
    return f"{code}: {said}" if said else f"{code}; see `kubectl logs --previous`"


def _name(obj: JsonObject) -> str:
    return obj["metadata"]["name"]
