# SPDX-License-Identifier: Apache-2.0
"""R1RewardJob: one reasoning reward model, from preference data to an evaluated model."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from r1reward_api.base import (
    MUTABLE,
    OPERATIONAL,
    ApiModel,
    DnsName,
    ObjectUri,
    Rule,
    in_words,
)
from r1reward_api.constants import API_VERSION, Role
from r1reward_api.resource.common import (
    EnvVar,
    FetchedModelUri,
    FreeObject,
    HttpUrl,
    Image,
    Labels,
    LocalSecretRef,
    ModelUri,
    ResourceRequirements,
    SecretKeyRef,
    Toleration,
)
from r1reward_api.resource.status import R1RewardJobStatus
from r1reward_api.resource.training import Replicas, RlSpec, Seed, SftSpec

_SET_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class RuntimeRef(ApiModel):
    """The platform team's template for this job's pods."""

    kind: Literal["R1RewardRuntime", "ClusterR1RewardRuntime"] = "ClusterR1RewardRuntime"
    """R1RewardRuntime is looked up in the job's namespace."""
    name: DnsName
    """Name of the runtime."""


class ModelSpec(ApiModel):
    """The base vision-language model."""

    uri: ModelUri
    """hf://organisation/name, s3://bucket/prefix (a safetensors folder) or pvc://claim/path."""
    revision: Annotated[str, Field(max_length=253)] | None = None
    """Commit or tag for hf://; resolved to a commit by prepare."""
    token_secret_ref: Annotated[SecretKeyRef, OPERATIONAL] | None = None
    """Hugging Face token for gated models: this one, evaluate.baselines and the judge's."""


class StorageSpec(ApiModel):
    """Where the artifacts go."""

    # What the stages add to it must fit into the 1024 bytes of a key, too.
    uri: Annotated[ObjectUri, Field(max_length=512)]
    """s3://bucket/prefix, shared by the namespace's jobs: equal stages are computed once."""
    secret_ref: Annotated[LocalSecretRef, OPERATIONAL] | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION and
    optionally ca.crt."""
    service_account_name: Annotated[DnsName, OPERATIONAL] | None = None
    """Workload identity instead of a Secret: the service account of the pods that use storage."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.secretRef) != has(self.serviceAccountName)",
            "give exactly one of secretRef and serviceAccountName (workload identity)",
        ),
    )


ColumnName = Annotated[str, Field(min_length=1, max_length=253)]
Format = Literal[
    "Plain",
    "R1Reward",
    "VLRewardBench",
    "VLRewardBenchRelease",
    "MMRLHFRewardBench",
    "MultimodalRewardBench",
    "RLAIFV",
    "VLFeedback",
    "POVID",
    "WildVision",
]


class Columns(ApiModel):
    """Where the rows have what is needed, by its name here. A name that is left out stands for
    the column of the same name."""

    question: ColumnName | None = None
    """What was asked about the images."""
    answer1: ColumnName | None = None
    """One answer."""
    answer2: ColumnName | None = None
    """The other answer."""
    gold: ColumnName | None = None
    """The better answer, 1 or 2."""
    chosen: ColumnName | None = None
    """The better answer, for rows that have no gold; needs rejected."""
    rejected: ColumnName | None = None
    """The worse answer."""
    images: ColumnName | None = None
    """One image or a list of them: encoded files, base64 or paths."""
    id: ColumnName | None = None
    """Name of the row; without such a column it is made from the file's name and the line."""
    source: ColumnName | None = None
    """Name of the data set, for the report."""
    category: ColumnName | None = None
    """What evaluation groups the rows by."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.chosen) == has(self.rejected)",
            "give chosen and rejected together",
        ),
        Rule(
            "!has(self.chosen) || !(has(self.answer1) || has(self.answer2) || has(self.gold))",
            "give either chosen and rejected, or answer1, answer2 and gold",
        ),
    )


class PreferenceSource(ApiModel):
    """Preference data."""

    uri: ObjectUri
    """s3://bucket/prefix/*.parquet, *.jsonl, *.json or *.csv; `*` matches within a folder."""
    format: Format = "Plain"
    """What the rows look like. Plain: the columns of this project, or as `columns` says.
    R1Reward: the RL rows of the R1-Reward release. VLRewardBench: the official Parquet file.
    VLRewardBenchRelease and MMRLHFRewardBench: the JSONL files of the R1-Reward release.
    MultimodalRewardBench: all_data.json. RLAIFV, VLFeedback, POVID, WildVision: as those data
    sets are published."""
    columns: Columns | None = None
    """Names of the columns, for Plain."""
    image_prefix: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """What the paths of the images begin with where it stands for the folder of their file, such
    as /data/images/. Without it, an absolute path is found by its last parts if only one file can
    be meant."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.columns) || !has(self.format) || self.format == 'Plain'",
            "columns are for format Plain: leave one of the two out",
        ),
    )


SetName = Annotated[
    str,
    Field(min_length=1, max_length=32, pattern=_SET_NAME),
    in_words(
        _SET_NAME,
        "must have lower-case letters, digits and '-', such as vl-rewardbench",
    ),
    Rule("self != 'heldout'", "heldout is what the held-out rows are called: choose another name"),
]


class EvaluationSet(PreferenceSource):
    """Rows that are judged and never trained on."""

    name: SetName
    """What the report calls it."""


class Holdout(ApiModel):
    """Rows kept back for evaluation."""

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Share of the images whose rows are held out. Rows that share an image stay together."""
    seed: Seed = 0
    """Chooses which images."""


class DataSpec(ApiModel):
    """The preference data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minPixels <= self.maxPixels",
            "minPixels must not be more than maxPixels: raise maxPixels or lower minPixels",
        ),
    )

    preferences: Annotated[list[PreferenceSource], Field(min_length=1, max_length=64)]
    """Where the rows lie."""
    holdout: Holdout = Holdout()
    """Rows kept back for evaluation."""
    max_rows: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Reads only the first rows."""
    max_bad_rows: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Bad rows are quarantined; more than this many fail the job."""
    seed: Seed = 0
    """Balances which answer stands first."""
    both_orders: bool = False
    """Has every training row twice, once with either answer first. Held-out rows and evaluation
    sets stay as they are."""
    contamination: Literal["Report", "Remove"] = "Report"
    """What happens to training rows that share an image or a text with held-out rows or
    evaluation sets. Report: the quality report names them. Remove: they are left out as well."""
    prompt_template: (
        Annotated[
            str,
            Field(min_length=1, max_length=16384),
            Rule(
                "self.contains('{question}') && self.contains('{answer1}') && "
                "self.contains('{answer2}')",
                "must contain {question}, {answer1} and {answer2}",
            ),
        ]
        | None
    ) = None
    """Replaces the paper's prompt. Slots: {question}, {answer1}, {answer2}."""
    min_pixels: Annotated[int, Field(ge=784, le=16_777_216)] = 3136
    """Smaller images are enlarged to this many pixels."""
    max_pixels: Annotated[int, Field(ge=784, le=16_777_216)] = 501_760
    """Larger images are reduced to this many pixels."""
    max_prompt_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = 20_480
    """Rows with a longer prompt are bad rows."""


class Teacher(ApiModel):
    """An OpenAI-compatible chat service that sees images."""

    base_url: HttpUrl
    """Base URL, ending in /v1."""
    model: Annotated[str, Field(min_length=1, max_length=253)]
    """Model name."""
    api_key_secret_ref: Annotated[SecretKeyRef, OPERATIONAL] | None = None
    """API key."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096), OPERATIONAL] = 32
    """Requests in flight."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600), OPERATIONAL] = 120
    """Deadline of one request."""
    max_tokens: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Longest answer."""


class AnnotateSpec(ApiModel):
    """Chains of thought from a teacher (paper, section 3.2)."""

    teacher: Teacher
    """Who is asked."""
    max_attempts: Annotated[int, Field(ge=1, le=16)] = 3
    """A row is asked again until the verdict is right, at most this often."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Temperature of the first attempt."""
    retry_temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Temperature of later attempts; at 0 they would repeat the first."""
    max_rows: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Asks for only this many rows, chosen by seed, whole images at a time."""
    seed: Seed = 0
    """Chooses the rows of maxRows and seeds the teacher's sampling."""
    processes: Annotated[int, Field(ge=1, le=16), OPERATIONAL] | None = None
    """Processes of the annotate pod among which Ray Data spreads the rows; 1 is without Ray. By
    default as many as rows and CPUs deserve, which is 1 for small jobs."""


_COMPARED = r"^(Base|SFT|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"

Compared = Annotated[
    str,
    Field(min_length=1, max_length=32, pattern=_COMPARED),
    in_words(_COMPARED, "must be Base, SFT or the name of one of evaluate.baselines"),
]


class Gate(ApiModel):
    """One figure that the job's last weights must reach. Larger is better in all of them."""

    metric: Literal["Accuracy", "BothRight", "OrderAgreement", "ValidRate"]
    """Greedy, over the held-out rows. Accuracy: mean over both answer orders. BothRight: rows
    right in both orders. OrderAgreement: rows in which both orders choose the same answer.
    ValidRate: answers with a verdict."""
    minimum: Annotated[float, Field(ge=0, le=1)] | None = None
    """The figure must be at least this, from 0 to 1."""
    not_worse_than: Compared | None = None
    """Base, SFT or the name of one of evaluate.baselines. The figure must not be worse than that of
    these weights with significance: the 95 % interval of the difference over the same rows (paired
    bootstrap) must not lie below 0."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.minimum) || has(self.notWorseThan)",
            "a gate needs minimum or notWorseThan, or both",
        ),
    )


BaselineName = Annotated[
    str,
    Field(min_length=1, max_length=32, pattern=_SET_NAME),
    in_words(_SET_NAME, "must have lower-case letters, digits and '-', such as r1-reward"),
    Rule(
        "!(self in ['base', 'sft', 'rl'])",
        "base, sft and rl are the job's own weights: choose another name",
    ),
]


class Baseline(ApiModel):
    """Another model that judges the same rows, such as a published reward model."""

    name: BaselineName
    """What the report calls it."""
    uri: FetchedModelUri
    """hf://organisation/name or s3://bucket/prefix. Its weights must have the names and shapes of
    the base model's, because the same servers load them; it brings its own tokenizer and
    processor."""
    revision: Annotated[str, Field(max_length=253)] | None = None
    """Commit or tag for hf://."""


class EvaluateSpec(ApiModel):
    """Evaluation on the held-out rows: base, SFT and RL weights in turn, both answer orders."""

    sets: Annotated[list[EvaluationSet], Field(max_length=16)] = []
    """Further rows that are judged, such as benchmarks. Nothing is downloaded from elsewhere: they
    lie in the store of `storage`."""
    votes: Annotated[list[Annotated[int, Field(ge=1, le=999)]], Field(max_length=8)] = [1, 5]
    """Voting@K and any@K for each K; 1 is the greedy answer."""
    early_stop: bool = True
    """Asks for votes in rounds, and for none that cannot change the majority of K. Voting@K is the
    same; any@K is then a lower bound, and the report says how much is open."""
    protocols: Annotated[
        list[Literal["BothOrders", "SeededRandom", "Release"]], Field(min_length=1, max_length=3)
    ] = ["BothOrders"]
    """Whose figures the report has, all from the same greedy answers. BothOrders: mean over both
    answer orders. SeededRandom: one order a row, drawn by seed. Release: better answer first and
    read as the R1-Reward release reads it, as published numbers are made. Every row is asked in
    both orders in any case: gates and summary are by BothOrders."""
    max_rows: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Uses only this many held-out rows."""
    max_new_tokens: Annotated[int, Field(ge=1, le=65536)] = 4096
    """Longest answer, in tokens."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Temperature of the votes."""
    models: Annotated[list[Literal["Base", "SFT", "RL"]], Field(min_length=1, max_length=3)] = [
        "Base",
        "SFT",
        "RL",
    ]
    """Which weights are evaluated; those of stages that did not run are left out."""
    baselines: Annotated[list[Baseline], Field(max_length=8)] = []
    """Other models that judge the same rows in the same way, for the same tables."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Resamples behind the confidence intervals."""
    gates: Annotated[list[Gate], Field(max_length=16)] = []
    """What the last weights must reach for the condition GatesPassed, on which a pipeline can
    wait. `jobs/<name>/latest.json` in storage moves to a job's result only when it is passed."""
    seed: Seed = 0
    """Seed of the votes and of the bootstrap."""
    rollout_replicas: Annotated[Replicas, OPERATIONAL, MUTABLE] = 1
    """vLLM servers."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.gates) || self.gates.all(g, !has(g.notWorseThan) || "
            "g.notWorseThan in self.models || (has(self.baselines) && "
            "self.baselines.exists(b, b.name == g.notWorseThan)))",
            "a gate's notWorseThan must be one of evaluate.models or evaluate.baselines: "
            "add it there",
        ),
        Rule(
            "!has(self.sets) || self.sets.all(s, self.sets.exists_one(t, t.name == s.name))",
            "two of evaluate.sets have the same name: rename one",
        ),
        Rule(
            "!has(self.baselines) || self.baselines.all(b, "
            "self.baselines.exists_one(t, t.name == b.name))",
            "two of evaluate.baselines have the same name: rename one",
        ),
        # A termination message has room for no more.
        Rule(
            "!has(self.sets) || !has(self.baselines) || "
            "size(self.sets) + size(self.baselines) <= 16",
            "evaluate.sets and evaluate.baselines are at most 16 together: judge the others in "
            "a second job",
        ),
    )


class Policy(ApiModel):
    """Deadlines, retries and retention. May change at any time."""

    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """Failures of a stage's own program before the job fails. Evictions, lost nodes and other
    faults of the infrastructure are not counted."""
    infrastructure_limit: Annotated[int, Field(ge=0, le=1000)] = 20
    """Attempts of a stage lost to infrastructure before the job fails."""
    start_deadline_seconds: Annotated[int, Field(ge=10, le=604_800)] = 1800
    """How long a stage may hold services without its worker running before it lets go and
    retries."""
    active_deadline_seconds: Annotated[int, Field(ge=10, le=31_536_000)] | None = None
    """How long a stage's attempt may run."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Deletes the finished R1RewardJob after this long; what lies in S3 stays."""


class RoleOverride(ApiModel):
    """What a job may change of a role's pod template, where the runtime allows it."""

    resources: ResourceRequirements | None = None
    """Container resources."""
    node_selector: Labels | None = None
    """Node labels to match."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    """Taints to tolerate."""
    env: Annotated[list[EnvVar], Field(max_length=64)] | None = None
    """Plain environment variables."""


class Overrides(ApiModel):
    """What a job may change of its runtime, where the runtime allows it."""

    trainer_image: Image | None = None
    """Image of prepare, annotate, trainer, verifier and evaluate."""
    rollout_image: Image | None = None
    """Image of rollout and judge."""
    roles: Annotated[dict[Role, RoleOverride], Field(max_length=7)] = {}
    """By role."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.roles) || self.roles.all(r, r in " + str([r.value for r in Role]) + ")",
            "roles are: " + ", ".join(Role),
        ),
    )


class R1RewardJobSpec(ApiModel):
    """What to train and how."""

    runtime_ref: RuntimeRef
    """The platform team's template."""
    model: ModelSpec
    """The base model."""
    storage: Annotated[StorageSpec, OPERATIONAL]
    """Where artifacts go."""
    data: DataSpec
    """The preference data."""
    annotate: AnnotateSpec | None = None
    """Chains of thought from a teacher; leave out to bring your own or to skip SFT."""
    sft: SftSpec | None = None
    """Cold start; leave out to start RL from the base model."""
    rl: RlSpec | None = None
    """Reinforcement learning; leave out to stop after SFT."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """Evaluation."""
    policy: Annotated[Policy, OPERATIONAL, MUTABLE] = Policy()
    """Deadlines, retries and retention."""
    overrides: Annotated[Overrides, OPERATIONAL] = Overrides()
    """Changes to the runtime, where it allows them."""
    queue_name: Annotated[DnsName, OPERATIONAL] | None = None
    """Kueue LocalQueue, put as a label on the job's workloads."""
    suspend: Annotated[bool, OPERATIONAL, MUTABLE] = False
    """True stops the running stage, keeps its checkpoints and frees its pods."""
    rerun: Annotated[
        int,
        Field(ge=0, le=1_000_000),
        OPERATIONAL,
        MUTABLE,
        Rule("self >= oldSelf", "rerun may only grow: raise it to start a failed job again"),
    ] = 0
    """Raise it to start a failed job again."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.sft) || has(self.annotate) || has(self.sft.chains)",
            "sft needs chains of thought: add an annotate section, or give sft.chains",
        ),
        Rule(
            "!has(self.rl) || self.rl.rows != 'Hard' || has(self.annotate)",
            "rl.rows Hard needs annotate to know the difficulty: add annotate or set rl.rows: All",
        ),
        Rule(
            "!has(self.evaluate.gates) || self.evaluate.gates.all(g, !has(g.notWorseThan) || "
            "!(g.notWorseThan in ['Base', 'SFT']) || "
            "(has(self.rl) && 'RL' in self.evaluate.models && "
            "(g.notWorseThan == 'Base' || has(self.sft))) || "
            "(has(self.sft) && 'SFT' in self.evaluate.models && g.notWorseThan == 'Base'))",
            "a gate's notWorseThan must name weights that the job trains before its last ones: "
            "leave it out, or add the section that trains them",
        ),
        Rule(
            "self.evaluate.models.exists(m, m == 'Base' || (m == 'SFT' && has(self.sft)) || "
            "(m == 'RL' && has(self.rl)))",
            "evaluate.models names only stages that this job has not: add Base",
        ),
    )


class R1RewardJob(ApiModel):
    """Trains a reasoning reward model: prepare, annotate, SFT, RL, evaluate."""

    api_version: Literal["r1reward.dev/v1alpha1"] = API_VERSION
    """The API version."""
    kind: Literal["R1RewardJob"] = "R1RewardJob"
    """The kind."""
    metadata: FreeObject
    """Name of at most 40 characters: letters, digits and -, beginning with a letter."""
    spec: R1RewardJobSpec
    """What to train and how."""
    status: R1RewardJobStatus = R1RewardJobStatus()
    """What was observed. Written by the operator."""
