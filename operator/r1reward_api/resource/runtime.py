# SPDX-License-Identifier: Apache-2.0
"""R1RewardRuntime and ClusterR1RewardRuntime: the platform team's templates."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from r1reward_api.base import ApiModel, DnsName, Rule
from r1reward_api.constants import API_VERSION, Role
from r1reward_api.resource.common import (
    EnvVar,
    FreeObject,
    Image,
    Labels,
    LocalSecretRef,
    Quantity,
    ResourceRequirements,
    Toleration,
)


class Images(ApiModel):
    """Container images."""

    trainer: Image
    """Runs prepare, annotate, trainer, verifier and evaluate."""
    rollout: Image
    """vLLM with the rollout plug-in: runs rollout and judge."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When images are pulled."""
    pull_secrets: Annotated[list[LocalSecretRef], Field(max_length=8)] = []
    """Secrets of the job's namespace with registry credentials."""


class ModelServing(ApiModel):
    """How the model is held, in the trainer and in vLLM."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of computation; trainer state is float32."""
    max_model_length: Annotated[int, Field(ge=64, le=1_048_576)] = 24_576
    """Longest prompt and answer together, in tokens."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that one vLLM server spreads the model over."""
    images_per_prompt: Annotated[int, Field(ge=1, le=64)] = 1
    """Most images in one row."""
    kv_cache_bytes: Annotated[int, Field(ge=1_048_576)] | None = None
    """Fixed size of vLLM's KV cache; vLLM decides when absent."""
    gradient_checkpointing: bool = False
    """Recomputes activations: less memory, more time."""
    extra_args: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=64)] = []
    """Further arguments of the vLLM server."""


class TrainerShape(ApiModel):
    """Size of the PyTorchJobs."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods."""
    processes_per_worker: Annotated[int, Field(ge=1, le=16)] = 1
    """Processes a pod: one a GPU."""


class CacheVolume(ApiModel):
    """A persistent volume claim of the job's namespace, mounted as a cache."""

    claim_name: DnsName
    """Name of the PersistentVolumeClaim."""
    mount_path: Annotated[str, Field(max_length=512, pattern=r"^/[^:]*$")]
    """Where it is mounted."""


class RoleTemplate(ApiModel):
    """The pods of one role."""

    resources: ResourceRequirements = ResourceRequirements()
    """Container resources, GPUs of any vendor among them."""
    node_selector: Labels = {}
    """Node labels to match."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    """Taints to tolerate."""
    affinity: FreeObject | None = None
    """Affinity as in a pod spec."""
    topology_spread_constraints: Annotated[list[FreeObject], Field(max_length=8)] = []
    """As in a pod spec."""
    priority_class_name: DnsName | None = None
    """Priority class."""
    runtime_class_name: DnsName | None = None
    """Runtime class."""
    scheduler_name: DnsName | None = None
    """Scheduler other than the default."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Between SIGTERM and SIGKILL: a trainer saves in it, a server drains."""
    shared_memory: Quantity = "512Mi"
    """Size of /dev/shm."""
    scratch: Quantity | None = None
    """Size limit of the scratch volume."""
    caches: Annotated[list[CacheVolume], Field(max_length=8)] = []
    """Persistent caches."""
    env: Annotated[list[EnvVar], Field(max_length=64)] = []
    """Plain environment variables."""
    labels: Labels = {}
    """Further pod labels."""
    startup_deadline_seconds: Annotated[int, Field(ge=10, le=86_400)] = 1800
    """How long a server may take to load its model."""


class Limits(ApiModel):
    """Most that a job may ask for."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 64
    """Trainer pods."""
    rollout_replicas: Annotated[int, Field(ge=1, le=1024)] = 64
    """vLLM servers of a stage: rollout servers, and as many judges at most."""
    verifier_replicas: Annotated[int, Field(ge=1, le=1024)] = 16
    """Verifier pods."""


class R1RewardRuntimeSpec(ApiModel):
    """How jobs run on this platform."""

    images: Images
    """Container images."""
    serving: ModelServing = ModelServing()
    """How the model is held."""
    trainer: TrainerShape = TrainerShape()
    """Size of the PyTorchJobs; a job may ask for other workers."""
    roles: Annotated[dict[Role, RoleTemplate], Field(max_length=7)] = {}
    """Pod templates by role: prepare, annotate, trainer, rollout, verifier, judge, evaluate."""
    limits: Limits = Limits()
    """Most that a job may ask for."""
    allowed_overrides: Annotated[
        list[Literal["resources", "nodeSelector", "tolerations", "env", "image"]],
        Field(max_length=5),
    ] = ["resources", "nodeSelector", "tolerations"]
    """Fields that a job may override."""
    allowed_image_prefixes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=32)
    ] = []
    """With image among allowedOverrides: an overriding image must begin with one of these."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.roles) || self.roles.all(r, r in " + str([r.value for r in Role]) + ")",
            "roles are: " + ", ".join(Role),
        ),
        Rule(
            "!has(self.allowedOverrides) || !('image' in self.allowedOverrides) || "
            "(has(self.allowedImagePrefixes) && self.allowedImagePrefixes.size() > 0)",
            "image in allowedOverrides needs allowedImagePrefixes",
        ),
    )


class R1RewardRuntime(ApiModel):
    """How R1RewardJobs of this namespace run."""

    api_version: Literal["r1reward.dev/v1alpha1"] = API_VERSION
    """The API version."""
    kind: Literal["R1RewardRuntime"] = "R1RewardRuntime"
    """The kind."""
    metadata: FreeObject
    """Object metadata."""
    spec: R1RewardRuntimeSpec
    """How jobs run."""


class ClusterR1RewardRuntime(ApiModel):
    """How R1RewardJobs of all namespaces run."""

    api_version: Literal["r1reward.dev/v1alpha1"] = API_VERSION
    """The API version."""
    kind: Literal["ClusterR1RewardRuntime"] = "ClusterR1RewardRuntime"
    """The kind."""
    metadata: FreeObject
    """Object metadata."""
    spec: R1RewardRuntimeSpec
    """How jobs run."""
