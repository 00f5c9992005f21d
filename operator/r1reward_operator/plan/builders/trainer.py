# SPDX-License-Identifier: Apache-2.0
"""The sft and rl stages' worker: a PyTorchJob.

Worker-only with a static rendezvous: a job with a Master gets an init container
injected that breaks Pod Security `restricted`, and with c10d worker 0 need not
be rank 0, the only one that reports.
"""

from typing import Any, cast

from kubeflow.training import (
    KubeflowOrgV1PyTorchJob,
    KubeflowOrgV1PyTorchJobSpec,
    KubeflowOrgV1ReplicaSpec,
    KubeflowOrgV1RunPolicy,
)
from kubernetes.client import ApiClient

from r1reward_api.constants import (
    LABEL_TRAINING_INDEX,
    RENDEZVOUS_PORT,
    TRAINER_CONTAINER,
    Role,
)
from r1reward_api.names import worker, worker_pod
from r1reward_operator.plan.builders import environment, pods
from r1reward_operator.plan.builders.build import Build, workload_metadata
from r1reward_operator.plan.builders.workers import worker_environment, worker_volumes
from r1reward_operator.plan.effective import trainer_shape

SHUTDOWN_MARGIN_SECONDS = 5
"""Between the end of torchrun's processes and that of the pod."""


def pytorch_job(build: Build) -> dict[str, Any]:
    """The PyTorchJob of one attempt."""
    section = build.spec.rl if build.stage.value == "rl" else build.spec.sft
    workers = section.workers if section is not None else None
    shape = trainer_shape(build.runtime, workers)
    main = pods.Container(
        name=TRAINER_CONTAINER,
        image=build.runtime.images.trainer,
        command=[
            "python",
            *("-m", "r1reward_trainer.torchrun"),
            *("-m", "r1reward_trainer", build.stage.value),
        ],
        env=[*worker_environment(build), *_rendezvous(build)],
        # The training operator adds this port where it is missing; stated, nothing changes.
        extra={"ports": [{"name": "pytorchjob-port", "containerPort": RENDEZVOUS_PORT}]},
    )
    template = pods.pod_template(
        build,
        Role.TRAINER,
        main,
        volumes=worker_volumes(build),
        uses_storage=True,
        restart_policy="Never",
    )
    job = KubeflowOrgV1PyTorchJob(
        api_version="kubeflow.org/v1",
        kind="PyTorchJob",
        metadata=workload_metadata(
            build, worker(build.job, build.stage, build.attempt), Role.TRAINER
        ),
        spec=KubeflowOrgV1PyTorchJobSpec(
            nproc_per_node=str(shape.processes_per_worker),
            pytorch_replica_specs={
                "Worker": KubeflowOrgV1ReplicaSpec(
                    replicas=shape.workers, restart_policy="Never", template=template
                )
            },
            run_policy=KubeflowOrgV1RunPolicy(clean_pod_policy="Running"),
        ),
    )
    return cast("dict[str, Any]", ApiClient().sanitize_for_serialization(job))


def _rendezvous(build: Build) -> environment.EnvList:
    """torchrun's options; the training operator adds PET_NNODES and PET_NPROC_PER_NODE."""
    return [
        environment.plain("PET_RDZV_BACKEND", "static"),
        environment.plain("PET_MASTER_ADDR", worker_pod(build.job, build.stage, build.attempt, 0)),
        environment.plain("PET_MASTER_PORT", str(RENDEZVOUS_PORT)),
        environment.plain("PET_MAX_RESTARTS", "0"),
        # torchrun would kill its processes 30 s after SIGTERM, whatever the pod may still save in.
        environment.plain("PET_SHUTDOWN_TIMEOUT", str(_shutdown_seconds(build))),
        environment.from_field("PET_NODE_RANK", f"metadata.labels['{LABEL_TRAINING_INDEX}']"),
    ]


def _shutdown_seconds(build: Build) -> int:
    """The pod's grace period, less a moment in which torchrun itself ends."""
    grace = build.config.grace_period_seconds
    return max(grace - SHUTDOWN_MARGIN_SECONDS, grace // 2)
