# SPDX-License-Identifier: Apache-2.0
"""What rollout, verifier and judge share: a Deployment, a Service, probes, drain."""

import math
from typing import Any

from r1reward_api.constants import Role
from r1reward_api.names import service
from r1reward_api.resource.common import ResourceRequirements
from r1reward_operator.plan.builders import environment, pods
from r1reward_operator.plan.builders.build import (
    Build,
    metadata,
    role_labels,
    workload_metadata,
)

_FETCH_RESOURCES = ResourceRequirements(
    requests={"cpu": "250m", "memory": "1Gi"}, limits={"memory": "4Gi"}
)
_PERIOD = 5


def deployment(build: Build, role: Role, replicas: int, template: dict[str, Any]) -> dict[str, Any]:
    """The Deployment of a role in an attempt."""
    name = service(build.job, build.stage, build.attempt, role)
    meta = workload_metadata(build, name, role)
    return deployment_of(meta, role_labels(build, role), replicas, template, history=0)


def deployment_of(
    meta: dict[str, Any],
    selector: dict[str, str],
    replicas: int,
    template: dict[str, Any],
    history: int,
) -> dict[str, Any]:
    """A Deployment that never has more pods than asked for: their GPUs are not there twice."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": history,
            "selector": {"matchLabels": selector},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "template": template,
        },
    }


def service_of(build: Build, role: Role, port: int, headless: bool) -> dict[str, Any]:
    """The Service in front of a role's Deployment.

    Args:
        build: the attempt.
        role: whose pods.
        port: of the pods and of the Service.
        headless: whether its name resolves to the pods themselves; only to ready ones.
    """
    spec: dict[str, Any] = {
        "selector": role_labels(build, role),
        "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
    }
    if headless:
        spec |= {"clusterIP": "None", "publishNotReadyAddresses": False}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(build, service(build.job, build.stage, build.attempt, role), role),
        "spec": spec,
    }


def serving(
    build: Build, role: Role, port: int, *, name: str = "http", ready: str = "/health"
) -> dict[str, Any]:
    """Port, probes and drain of a server's container.

    The start-up probe bears with a long load of the model; until it has passed, the
    liveness probe rests.

    Args:
        build: what is built.
        role: whose runtime template says how long the start may take.
        port: of the server.
        name: of the port.
        ready: path of the readiness probe; the others are at /health.
    """
    deadline = build.template(role).startup_deadline_seconds
    get = {"httpGet": {"path": "/health", "port": port}}
    return {
        "ports": [{"name": name, "containerPort": port}],
        "startupProbe": {
            **get,
            "periodSeconds": _PERIOD,
            "timeoutSeconds": 5,
            "failureThreshold": math.ceil(deadline / _PERIOD),
        },
        "readinessProbe": {
            "httpGet": {"path": ready, "port": port},
            "periodSeconds": _PERIOD,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            **get,
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        # Ends after the pod has left the Service, so that no new request meets a closed door.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
    }


def identity(build: Build) -> environment.EnvList:
    """Who a server is: it proves it to its clients by the attempt's token."""
    return [
        environment.plain("R1_JOB_UID", build.config.job.uid),
        environment.from_field("POD_UID", "metadata.uid"),
    ]


def fetch_model(build: Build, env: environment.EnvList | None = None) -> pods.Container:
    """The init container that alone has the storage credentials in a server's pod."""
    return pods.Container(
        name="fetch-model",
        image=build.runtime.images.trainer,
        command=["r1", "fetch-model"],
        env=[
            environment.plain("R1_RUN_CONFIG", pods.RUN_CONFIG_PATH),
            *environment.storage(build.spec.storage),
            *(env or []),
        ],
        resources=_FETCH_RESOURCES,
    )
