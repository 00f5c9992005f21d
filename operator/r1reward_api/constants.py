# SPDX-License-Identifier: Apache-2.0
"""Names that several programs must agree on."""

from enum import StrEnum
from typing import Final

GROUP: Final = "r1reward.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "r1reward.dev/v1alpha1"

FIELD_MANAGER = "r1reward"
"""Owns every child object and the job's status, except `status.progress`."""
PROGRESS_FIELD_MANAGER = "r1reward-progress"
"""Owns `status.progress`, so that a progress report never wakes a reconcile conflict."""

LABEL_JOB = f"{GROUP}/job"
LABEL_JOB_UID = f"{GROUP}/job-uid"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_ROLE = f"{GROUP}/role"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "r1reward-operator"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_TRAINING_JOB = "training.kubeflow.org/job-name"
LABEL_TRAINING_INDEX = "training.kubeflow.org/replica-index"

ROLLOUT_PORT = 8000
VERIFIER_PORT = 8080
SCORING_PORT = 8080
JUDGE_PORT = 8000
RENDEZVOUS_PORT = 23456
PROGRESS_PORT = 8082

PROGRESS_AUDIENCE = "progress.r1reward.dev"
"""Audience of the projected service-account token with which pods push progress."""

TRAINER_CONTAINER = "pytorch"
"""The container name that the training operator looks for."""
MAIN_CONTAINER = "r1"
"""The container whose termination message counts, in every other pod."""

RUN_CONFIG_PATH = "/etc/r1reward/run.json"
ATTEMPT_TOKEN_PATH = "/var/run/secrets/r1reward/attempt/token"
PROGRESS_TOKEN_PATH = "/var/run/secrets/r1reward/progress/token"
S3_CA_PATH = "/etc/r1reward/s3-ca/ca.crt"
SCRATCH_PATH = "/scratch"
MODEL_PATH = "/models"
SERVER_TOKEN_PATH = "/models/server-token"
"""Where a served model's vLLM finds the token of its own pod."""
SERVING_TOKEN_PATH = "/var/run/secrets/r1reward/serving/token"
"""Where the scoring front finds the token that its clients must have."""

TERMINATION_MESSAGE_LIMIT = 3900
"""Bytes. The kubelet cuts at 4096; what is cut is no JSON any more."""


class Stage(StrEnum):
    """The stages of a job, in the order in which they run."""

    PREPARE = "prepare"
    ANNOTATE = "annotate"
    SFT = "sft"
    RL = "rl"
    EVALUATE = "evaluate"


STAGES: tuple[Stage, ...] = tuple(Stage)


class Role(StrEnum):
    """What a pod does; a runtime has a template for each."""

    PREPARE = "prepare"
    ANNOTATE = "annotate"
    TRAINER = "trainer"
    ROLLOUT = "rollout"
    VERIFIER = "verifier"
    JUDGE = "judge"
    EVALUATE = "evaluate"


class ExitCode:
    """Exit codes of the stages' entry points; `Failed` classes are told apart by them
    when the termination message is missing."""

    SUCCESS = 0
    PROGRAM = 1
    INFRASTRUCTURE = 75  # EX_TEMPFAIL
    CONFIGURATION = 78  # EX_CONFIG
    INTERRUPTED = 143  # ended by SIGTERM after saving
