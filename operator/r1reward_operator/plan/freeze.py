# SPDX-License-Identifier: Apache-2.0
"""A started attempt is frozen: its objects are built once and kept as built.

The ControllerRevision holds the objects themselves, so neither a new operator nor
a new default or runtime changes a running pod: afterwards only the number of
service replicas is replaced. It also remembers the runtime in force, from which
later attempts take what the stage's key depends on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from r1reward_api.constants import LABEL_ROLE, Role, Stage
from r1reward_api.names import frozen_revision
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import ModelServing, R1RewardRuntimeSpec
from r1reward_operator.plan.builders.attempt import attempt_objects
from r1reward_operator.plan.builders.build import Build, metadata
from r1reward_operator.plan.model import JsonObject

_KINDS = frozenset({"NetworkPolicy", "ConfigMap", "Service", "Deployment", "Job", "PyTorchJob"})

_LIMITS = {
    Role.ROLLOUT.value: "rolloutReplicas",
    Role.JUDGE.value: "rolloutReplicas",
    Role.VERIFIER.value: "verifierReplicas",
}


@dataclass(frozen=True)
class Frozen:
    """An attempt as it was built.

    Attributes:
        key: the stage's key at its start.
        services: all objects but the worker, with the replicas of now.
        worker: the Job or PyTorchJob.
        workers: how many pods the worker has.
    """

    key: str | None
    services: tuple[JsonObject, ...]
    worker: JsonObject
    workers: int

    @property
    def deployments(self) -> tuple[JsonObject, ...]:
        """The attempt's servers."""
        return tuple(o for o in self.services if o["kind"] == "Deployment")


@dataclass(frozen=True)
class Pinned:
    """What later attempts take from an earlier one, since the stage's key depends on it."""

    serving: ModelServing
    rollout_image: str


def freeze(build: Build) -> dict[str, Any]:
    """The ControllerRevision of an attempt."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata(build, frozen_revision(build.job, build.stage, build.attempt)),
        "revision": build.attempt,
        "data": {
            "key": build.config.key or "",
            "runtime": build.runtime.to_wire(),
            "objects": attempt_objects(build),
        },
    }


def thaw(revision: JsonObject, spec: R1RewardJobSpec, stage: Stage) -> Frozen:
    """The attempt's objects.

    Args:
        revision: the ControllerRevision.
        spec: the job's spec of now, for the replicas.
        stage: the stage.
    """
    data = revision["data"]
    *services, worker = data["objects"]
    replicas = _within_limits(replicas_of(spec, stage), data)
    return Frozen(
        key=data["key"] or None,
        services=tuple(_scaled(o, replicas) for o in services),
        worker=worker,
        workers=_workers(worker),
    )


def is_ours(revision: JsonObject, namespace: str, uid: str) -> bool:
    """Whether a revision holds nothing but objects of its job in the job's namespace.

    Whoever may create ControllerRevisions could forge one; the operator, who may do more
    than they, must not carry it out anywhere else.

    Args:
        revision: the ControllerRevision.
        namespace: of the job.
        uid: of the job.
    """
    objects = (revision.get("data") or {}).get("objects") or ()
    return bool(objects) and all(
        o.get("kind") in _KINDS
        and o["metadata"].get("namespace") == namespace
        and [r.get("uid") for r in o["metadata"].get("ownerReferences") or ()] == [uid]
        for o in objects
    )


def replicas_of(spec: R1RewardJobSpec, stage: Stage) -> dict[str, int]:
    """The replicas that the spec asks for, by role."""
    if stage is Stage.EVALUATE:
        return {Role.ROLLOUT: spec.evaluate.rollout_replicas}
    if stage is not Stage.RL or spec.rl is None:
        return {}
    replicas = {
        Role.ROLLOUT: spec.rl.rollout.replicas,
        Role.VERIFIER: spec.rl.verifier.replicas,
    }
    judge = spec.rl.verifier.judge
    if judge is not None and judge.model is not None:
        replicas[Role.JUDGE] = judge.replicas
    return {role.value: count for role, count in replicas.items()}


def pinned(revision: JsonObject | None) -> Pinned | None:
    """What an earlier attempt fixed; None when it cannot be read any more."""
    runtime = frozen_runtime(revision)
    return None if runtime is None else Pinned(runtime.serving, runtime.images.rollout)


def frozen_runtime(revision: JsonObject | None) -> R1RewardRuntimeSpec | None:
    """The runtime in force when an attempt began; None when it cannot be read any more."""
    if revision is None:
        return None
    try:
        return R1RewardRuntimeSpec.model_validate(revision["data"]["runtime"])
    except (KeyError, ValidationError):
        return None


def trainer_image(revision: JsonObject | None) -> str | None:
    """The trainer image of an attempt."""
    if revision is None:
        return None
    return revision.get("data", {}).get("runtime", {}).get("images", {}).get("trainer")


def _within_limits(replicas: Mapping[str, int], data: Mapping[str, Any]) -> dict[str, int]:
    """No more than the runtime in force allows: replicas may grow after it was asked."""
    limits = (data.get("runtime") or {}).get("limits") or {}
    most = {role: limits.get(field) for role, field in _LIMITS.items()}
    return {role: min(count, most.get(role) or count) for role, count in replicas.items()}


def _scaled(obj: Mapping[str, Any], replicas: Mapping[str, int]) -> JsonObject:
    role = obj["metadata"]["labels"].get(LABEL_ROLE)
    if obj["kind"] != "Deployment" or role not in replicas:
        return obj
    return {**obj, "spec": {**obj["spec"], "replicas": replicas[role]}}


def _workers(worker: Mapping[str, Any]) -> int:
    if worker["kind"] != "PyTorchJob":
        return 1
    specs: Sequence[Mapping[str, Any]] = list(worker["spec"]["pytorchReplicaSpecs"].values())
    return sum(s.get("replicas", 1) for s in specs)
