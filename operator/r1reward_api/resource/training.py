# SPDX-License-Identifier: Apache-2.0
"""The `sft` and `rl` sections of an R1RewardJob. Defaults are the paper's (arXiv
2505.02835, section 4 and table of settings) where it gives one."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from r1reward_api.base import MUTABLE, OPERATIONAL, ApiModel, ObjectUri, Rule
from r1reward_api.resource.common import FetchedModelUri, HttpUrl, SecretKeyRef

LearningRate = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Replicas = Annotated[int, Field(ge=1, le=1024)]


class Checkpoint(ApiModel):
    """When training state is saved; each save is a transaction."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 25
    """Optimizer steps between checkpoints. A kill loses at most the steps since the last."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """How many checkpoints are kept; older ones are deleted."""


class Optimizer(ApiModel):
    """AdamW and its learning-rate schedule."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the second moment."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Gradients are clipped to this global norm."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Share of all steps in which the learning rate rises from 0."""
    schedule: Literal["Cosine", "Constant"] = "Cosine"
    """Cosine falls to minLearningRateRatio of the peak; Constant stays at the peak."""
    min_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Where the cosine ends, as a share of the peak."""


class SftSpec(ApiModel):
    """Cold start: supervised fine-tuning on the accepted chains of thought."""

    chains: ObjectUri | None = None
    """Bring your own chains: Parquet or JSONL rows with a `response`; needed when there is no
    annotate stage."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the chains."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Ends earlier, after this many optimizer steps."""
    learning_rate: LearningRate = 1e-5
    """Peak learning rate."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    """Rows per optimizer step, over all workers."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] = 2
    """Rows per forward pass and worker; changes memory, not the result."""
    optimizer: Optimizer = Optimizer()
    """Optimizer and schedule."""
    seed: Seed = 0
    """Order of the rows."""
    checkpoint: Annotated[Checkpoint, OPERATIONAL] = Checkpoint()
    """When training state is saved."""
    workers: Annotated[Replicas, OPERATIONAL] | None = None
    """Trainer pods; the runtime's number when absent."""


class Consistency(ApiModel):
    """The consistency reward (paper, section 3.3)."""

    weight: Annotated[float, Field(ge=0, le=10)] = 0.5
    """R = result * (1 + weight * consistency) + formatWeight * format."""
    values: Literal["Signed", "ZeroOne"] = "Signed"
    """Signed: match +1, mismatch -1, unknown 0, as in the released code. ZeroOne: 1 or 0."""


class Algorithm(ApiModel):
    """The policy-gradient method. The defaults are StableReinforce as in the paper."""

    name: Literal["StableReinforce", "ReinforcePlusPlus"] = "StableReinforce"
    """StableReinforce adds Pre-CLIP, the 3-sigma advantage filter and the consistency reward to
    Reinforce++. ReinforcePlusPlus leaves out Pre-CLIP and the filter."""
    clip_epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio is clipped to 1 - epsilon .. 1 + epsilon."""
    pre_clip_max: Annotated[float, Field(gt=1, le=1e6)] = 1000.0
    """Pre-CLIP: the log-ratio is clamped to +-log(preClipMax) before exp()."""
    advantage_filter_sigma: Annotated[float, Field(gt=0, le=100)] = 3.0
    """Normalised advantages beyond this many standard deviations become 0."""
    kl_coefficient: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the k1 KL estimate against the starting weights, inside the reward. 0 builds no
    reference model."""
    normalization: Literal["Token", "Sample"] = "Token"
    """Which mean and deviation normalise the advantages: over all response tokens, as released,
    or over samples."""
    baseline: Literal["Batch", "Group"] = "Batch"
    """Batch: as in the paper. Group: the mean reward of a prompt's samples is subtracted first;
    needs samplesPerPrompt of 2 or more."""
    format_weight: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Weight of the format reward."""
    consistency: Consistency = Consistency()
    """The consistency reward."""
    release_compatible: bool = False
    """Reproduces the released code's filter bounds, verdict parsing and judge parsing with their
    faults, but for full reward on an exception. For comparison only."""


class Sampling(ApiModel):
    """How answers are sampled during RL."""

    prompts_per_step: Annotated[int, Field(ge=1, le=65536)] = 256
    """Prompts per rollout batch."""
    samples_per_prompt: Annotated[int, Field(ge=1, le=256)] = 1
    """Answers per prompt."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature; the trainer's log-probs use the same."""
    max_new_tokens: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Longest answer, in tokens."""


class Rollout(ApiModel):
    """The vLLM servers that sample."""

    replicas: Annotated[Replicas, OPERATIONAL, MUTABLE] = 1
    """vLLM servers. May change while the stage runs, up to the limit of its runtime."""
    weight_transfer: Annotated[Literal["ObjectStore"], OPERATIONAL] = "ObjectStore"
    """How new weights reach the servers: through the object store."""


class Judge(ApiModel):
    """The model that judges whether a chain of thought agrees with its verdict: either `model`
    (a Deployment of the job's own) or `endpoint` (an OpenAI-compatible service)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.model) != has(self.endpoint)",
            "give exactly one of model (deployed for the job) and endpoint (a service that exists)",
        ),
    )

    model: FetchedModelUri | None = None
    """Model URI (hf://, s3://) of a judge that the job deploys."""
    endpoint: HttpUrl | None = None
    """Base URL of an OpenAI-compatible service, ending in /v1."""
    endpoint_model: Annotated[str, Field(max_length=253)] | None = None
    """Model name at the endpoint; its first one when absent."""
    api_key_secret_ref: Annotated[SecretKeyRef, OPERATIONAL] | None = None
    """Key for the endpoint."""
    replicas: Annotated[Replicas, OPERATIONAL, MUTABLE] = 1
    """Servers of the judge's Deployment."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096), OPERATIONAL] = 64
    """Judge calls in flight per verifier pod."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600), OPERATIONAL] = 60
    """Deadline of one judge call."""


class Verifier(ApiModel):
    """The reward service."""

    replicas: Annotated[Replicas, OPERATIONAL, MUTABLE] = 1
    """Verifier pods."""
    judge: Judge | None = None
    """Judges consistency; without it every consistency is 0, neutral."""


class RlSpec(ApiModel):
    """Reinforcement learning with StableReinforce."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.sampling.promptsPerStep * self.sampling.samplesPerPrompt % "
            "self.miniBatchSize == 0",
            "miniBatchSize must divide sampling.promptsPerStep * sampling.samplesPerPrompt",
        ),
        Rule(
            "self.algorithm.baseline != 'Group' || self.sampling.samplesPerPrompt >= 2",
            "algorithm.baseline Group needs sampling.samplesPerPrompt of 2 or more",
        ),
    )

    rows: Literal["Hard", "All"] = "Hard"
    """Hard: rows that the teacher got right only at the second attempt or later, or never.
    All: every training row."""
    algorithm: Algorithm = Algorithm()
    """The method."""
    sampling: Sampling = Sampling()
    """How answers are sampled."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 5
    """Passes over the rows."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Ends earlier, after this many rollout batches."""
    mini_batch_size: Annotated[int, Field(ge=1, le=65536)] = 128
    """Samples per optimizer update; promptsPerStep * samplesPerPrompt must be a multiple."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] = 2
    """Samples per forward pass and worker; changes memory, not the result."""
    learning_rate: LearningRate = 1e-6
    """Peak learning rate."""
    optimizer: Optimizer = Optimizer()
    """Optimizer and schedule."""
    seed: Seed = 0
    """Order of the prompts and seed of the sampling."""
    rollout: Rollout = Rollout()
    """The vLLM servers."""
    verifier: Verifier = Verifier()
    """The reward service."""
    checkpoint: Annotated[Checkpoint, OPERATIONAL] = Checkpoint()
    """When training state is saved."""
    workers: Annotated[Replicas, OPERATIONAL] | None = None
    """Trainer pods; the runtime's number when absent."""
