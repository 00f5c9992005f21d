# SPDX-License-Identifier: Apache-2.0
"""What is known of one job at one moment, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from r1reward_api.constants import LABEL_ATTEMPT, LABEL_ROLE, LABEL_STAGE, Role, Stage
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import R1RewardRuntimeSpec
from r1reward_api.resource.status import R1RewardJobStatus

JsonObject = Mapping[str, Any]

WORKER_KINDS = ("Job", "PyTorchJob")
WORKER_ROLES = (Role.PREPARE, Role.ANNOTATE, Role.TRAINER, Role.EVALUATE)


@dataclass(frozen=True)
class Runtime:
    """A runtime that was looked up.

    Attributes:
        spec: the template; None when there is none.
        problem: why there is none, with the remedy.
        waiting: True when it is only absent, or newer than this operator; False when it is wrong.
    """

    spec: R1RewardRuntimeSpec | None
    problem: str = ""
    waiting: bool = True


@dataclass(frozen=True)
class Observed:
    """One job and all that belongs to it.

    Attributes:
        job: the R1RewardJob as it is on the wire.
        spec: its spec; None when it does not fit the model.
        problem: why the spec does not fit.
        newer: the spec does not fit because it is of a newer version than this operator.
        status: its status.
        runtime: the runtime that it names.
        children: every object whose controller is the job.
        pods: every pod with the job's UID as a label.
        absent: kinds that the API server does not serve.
        listening_since: when the operator began to take reports of progress; None: long ago.
    """

    job: JsonObject
    spec: R1RewardJobSpec | None
    status: R1RewardJobStatus
    runtime: Runtime
    children: tuple[JsonObject, ...] = ()
    pods: tuple[JsonObject, ...] = ()
    problem: str = ""
    newer: bool = False
    absent: frozenset[str] = frozenset()
    listening_since: datetime | None = None

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.job["metadata"]["name"]

    @property
    def namespace(self) -> str:
        """Namespace of the job."""
        return self.job["metadata"]["namespace"]

    @property
    def uid(self) -> str:
        """UID of the job."""
        return self.job["metadata"]["uid"]

    @property
    def generation(self) -> int:
        """Generation of the job's spec."""
        return self.job["metadata"].get("generation", 1)

    @property
    def deleting(self) -> bool:
        """Whether the job is on its way out."""
        return bool(self.job["metadata"].get("deletionTimestamp"))

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], JsonObject]:
        return {(c["kind"], c["metadata"]["name"]): c for c in self.children}

    def child(self, kind: str, name: str) -> JsonObject | None:
        """The child of this kind and name."""
        return self._by_name.get((kind, name))

    def pods_of(self, stage: Stage, attempt: int) -> tuple[JsonObject, ...]:
        """All pods of one attempt, ordered by name."""
        return tuple(p for p in self.pods if attempt_of(p) == (stage.value, attempt))


def attempt_of(obj: JsonObject) -> tuple[str, int] | None:
    """Stage and attempt on an object's labels; None when it has none of ours."""
    labels = obj["metadata"].get("labels") or {}
    stage, attempt = labels.get(LABEL_STAGE), labels.get(LABEL_ATTEMPT)
    if stage is None or attempt is None or not attempt.isdigit():
        return None
    return stage, int(attempt)


def role_of(obj: JsonObject) -> str:
    """Role on an object's labels; empty when it has none."""
    return (obj["metadata"].get("labels") or {}).get(LABEL_ROLE, "")


def condition(obj: JsonObject, kind: str) -> JsonObject | None:
    """The status condition of a type, if there is one."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), None)


def is_true(obj: JsonObject, kind: str) -> bool:
    """Whether the status condition of a type is True."""
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"
