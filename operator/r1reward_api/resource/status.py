# SPDX-License-Identifier: Apache-2.0
"""What the operator reports: conditions, stages, artifacts, progress."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from r1reward_api.base import ApiModel
from r1reward_api.wire.progress import Progress

Text = Annotated[str, Field(max_length=1024)]
LongText = Annotated[str, Field(max_length=32768)]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]


class ConditionType(StrEnum):
    """The conditions of a job."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    BLOCKED = "Blocked"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    GATES_PASSED = "GatesPassed"


class StagePhase(StrEnum):
    """Where a stage is."""

    PENDING = "Pending"
    """Not begun."""
    STARTING = "Starting"
    """Its services or pods are coming up."""
    RUNNING = "Running"
    """Its worker runs."""
    RETRYING = "Retrying"
    """An attempt ended; the next one waits for its backoff or for old pods to go."""
    SUSPENDED = "Suspended"
    """Stopped by spec.suspend."""
    SUCCEEDED = "Succeeded"
    """Done; its manifest is in storage."""
    FAILED = "Failed"
    """Given up."""


class Condition(ApiModel):
    """A Kubernetes condition."""

    type: Annotated[str, Field(max_length=64)]
    """Succeeded, Failed, Suspended, Blocked, Ready, Reconciling, Stalled, and GatesPassed where
    evaluate.gates are set."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern="^[A-Za-z][A-Za-z0-9]*$")]
    """Why, as one word; see docs/troubleshooting.md."""
    message: LongText = ""
    """Why, in words, with the remedy."""
    last_transition_time: Time
    """When the status last changed."""
    observed_generation: int = 0
    """The spec generation that this speaks of."""


class ChildRef(ApiModel):
    """An object that the operator made for a stage."""

    kind: Annotated[str, Field(max_length=64)]
    """Kind of the object."""
    name: Annotated[str, Field(max_length=253)]
    """Its name, in the job's namespace."""
    uid: Annotated[str, Field(max_length=64)] | None = None
    """Its UID once seen."""


class OutputRef(ApiModel):
    """An output of a stage."""

    uri: Text
    """Where it lies."""
    digest: Annotated[str, Field(max_length=80)]
    """sha256:... over its files' names, sizes and digests."""
    bytes: int = 0
    """Size of all its files."""
    rows: int | None = None
    """Rows, where it is a table."""


class StageStatus(ApiModel):
    """One stage."""

    name: Literal["prepare", "annotate", "sft", "rl", "evaluate"]
    """Name of the stage."""
    phase: StagePhase = StagePhase.PENDING
    """Where it is."""
    key: Annotated[str, Field(max_length=80)] | None = None
    """What the result depends on, as a digest; equal keys share one result."""
    attempt: int = 0
    """Number of the attempt, from 1."""
    program_failures: int = 0
    """Attempts that failed by their own program; counted towards backoffLimit."""
    infrastructure_failures: int = 0
    """Attempts lost to infrastructure."""
    cache_hit: bool = False
    """True when an equal stage of another job had already been computed."""
    start_time: Time | None = None
    """When the stage began."""
    attempt_time: Time | None = None
    """When the attempt began."""
    running_time: Time | None = None
    """When the attempt's worker was first seen running."""
    retry_time: Time | None = None
    """Not before this time does the next attempt begin."""
    completion_time: Time | None = None
    """When the stage ended."""
    children: Annotated[
        list[ChildRef],
        Field(
            max_length=32,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["kind", "name"],
            },
        ),
    ] = []
    """Objects of the current attempt."""
    pods: Annotated[dict[str, str], Field(max_length=1024)] = {}
    """UIDs of the worker's pods by name: a changed UID ends the attempt."""
    outputs: Annotated[dict[str, OutputRef], Field(max_length=32)] = {}
    """What it left in storage, by name."""
    reason: Annotated[str, Field(max_length=128)] | None = None
    """Why the last attempt ended, as one word."""
    message: LongText | None = None
    """Why the last attempt ended, in words."""


class Artifact(ApiModel):
    """A result that users want."""

    name: Annotated[str, Field(max_length=64)]
    """Such as sft-weights, rl-weights, report."""
    uri: Text
    """Where it lies."""
    digest: Annotated[str, Field(max_length=80)]
    """sha256:... over its files."""
    bytes: int = 0
    """Size."""
    stage: Annotated[str, Field(max_length=32)]
    """The stage that made it."""


class CheckpointStatus(ApiModel):
    """The last committed checkpoint of the running stage."""

    stage: Annotated[str, Field(max_length=32)]
    """sft or rl."""
    step: int
    """Optimizer steps (sft) or rollout batches (rl) done."""
    uri: Text
    """Where it lies."""


class R1RewardJobStatus(ApiModel):
    """What was observed."""

    observed_generation: int | None = None
    """The spec generation that this status speaks of."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = []
    """Succeeded, Failed, Suspended, Blocked, Ready, Reconciling, Stalled, and GatesPassed where
    evaluate.gates are set."""
    start_time: Time | None = None
    """When the job started; from then on most of the spec is immutable."""
    completion_time: Time | None = None
    """When it succeeded or failed."""
    stage: Annotated[str, Field(max_length=32)] | None = None
    """The current stage."""
    phase: Annotated[str, Field(max_length=32)] | None = None
    """The current stage's phase, or Succeeded, Failed, Suspended, Blocked."""
    rerun: int | None = None
    """The value of spec.rerun that was acted on."""
    stages: Annotated[
        list[StageStatus],
        Field(
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = []
    """One entry a stage."""
    artifacts: Annotated[
        list[Artifact],
        Field(
            max_length=32,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = []
    """Results in storage."""
    checkpoint: CheckpointStatus | None = None
    """The last committed checkpoint."""
    code: Annotated[dict[str, str], Field(max_length=8)] = {}
    """Digest of each stage's own code, as reported by prepare from inside the image."""
    cached: Annotated[
        list["CachedStageStatus"],
        Field(
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["stage"],
            },
        ),
    ] = []
    """Later stages that prepare found already computed."""
    summary: Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=32)] = {}
    """Figures as strings, for the printer columns: accuracy and others."""
    progress: Progress | None = None
    """The running stage's own report; written by another field manager."""


class CachedStageStatus(ApiModel):
    """A stage that need not run."""

    stage: Annotated[str, Field(max_length=32)]
    """The stage."""
    key: Annotated[str, Field(max_length=80)]
    """The key under which its result was found."""
    outputs: Annotated[dict[str, OutputRef], Field(max_length=16)] = {}
    """Its outputs."""
    summary: Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=32)] = {}
    """Its figures."""
