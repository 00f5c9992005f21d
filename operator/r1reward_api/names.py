# SPDX-License-Identifier: Apache-2.0
"""Names of a job's children.

Deterministic, so that a second apply of the same plan is the same object, and
with the attempt in them, so that the pods of two attempts cannot be confused.
Job names have at most 40 characters (CEL in the CRD), which leaves every name
below 63.
"""

from r1reward_api.constants import LABEL_TRAINING_INDEX, Role, Stage

JOB_NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"

__all__ = [
    "JOB_NAME_PATTERN",
    "LABEL_TRAINING_INDEX",
    "attempt_token_secret",
    "frozen_revision",
    "network_policy",
    "run_config_map",
    "service",
    "serving",
    "worker",
    "worker_pod",
]


def worker(job: str, stage: Stage, attempt: int) -> str:
    """The Job or PyTorchJob of one attempt of a stage: `<job>-<stage>-<attempt>`."""
    return f"{job}-{stage}-{attempt}"


def worker_pod(job: str, stage: Stage, attempt: int, index: int) -> str:
    """The pod (and headless Service) that the training operator makes for a worker."""
    return f"{worker(job, stage, attempt)}-worker-{index}"


def service(job: str, stage: Stage, attempt: int, role: Role) -> str:
    """Deployment and Service of a role in one attempt: `<job>-<stage>-<attempt>-<role>`."""
    return f"{worker(job, stage, attempt)}-{role}"


def serving(job: str) -> str:
    """All objects that serve a finished job's model: `<job>-serving`."""
    return f"{job}-serving"


def run_config_map(job: str, stage: Stage, attempt: int) -> str:
    """The immutable ConfigMap with one attempt's run configuration."""
    return f"{worker(job, stage, attempt)}-config"


def attempt_token_secret(job: str, uid: str, stage: Stage, attempt: int) -> str:
    """The Secret with one attempt's token. The job's UID is in its name, because the operator
    cannot read Secrets: that of a deleted job with the same name must not be taken for its own."""
    return f"{worker(job, stage, attempt)}-token-{uid[:8]}"


def frozen_revision(job: str, stage: Stage, attempt: int) -> str:
    """The ControllerRevision that freezes one attempt."""
    return f"{worker(job, stage, attempt)}-frozen"


def network_policy(job: str, stage: Stage, attempt: int) -> str:
    """The NetworkPolicy around one attempt's pods."""
    return f"{worker(job, stage, attempt)}-pods"
