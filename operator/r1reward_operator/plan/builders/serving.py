# SPDX-License-Identifier: Apache-2.0
"""A finished job's model for others: vLLM and the scoring front in one pod, owned by nobody.

The pod is that of a rollout server with the front beside it. Clients reach the front alone, with
the token of a Secret that the user makes. The token between front and vLLM is the pod's own: the
init container makes it, and no object names it.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from r1reward_api.canonical import canonical_json
from r1reward_api.constants import (
    GROUP,
    RUN_CONFIG_PATH,
    SCORING_PORT,
    SERVER_TOKEN_PATH,
    SERVING_TOKEN_PATH,
    Role,
)
from r1reward_api.names import serving as serving_name
from r1reward_operator.plan.builders import environment, pods, rollout, servers
from r1reward_operator.plan.builders.build import Build
from r1reward_operator.plan.builders.config import config_data

VLLM_CONTAINER = "vllm"
FRONT_CONTAINER = "front"
_DIGEST = f"{GROUP}/config-digest"
_HISTORY = 3
_FETCH_SECONDS = 1800
"""For weights and images to arrive, beside the time that the runtime gives a server to load."""


@dataclass(frozen=True)
class ServingOptions:
    """What the user decides.

    Attributes:
        token_secret: Secret with the clients' token in its key `token`.
        replicas: pods.
        temperature: of the probabilities' calibration.
    """

    token_secret: str
    replicas: int = 1
    temperature: float = 1.0


def serving_objects(build: Build, options: ServingOptions) -> list[dict[str, Any]]:
    """ConfigMap, NetworkPolicy, Service and Deployment.

    Args:
        build: whose configuration has the model as its only input.
        options: of the user.
    """
    name, selector = serving_name(build.job), labels(build)
    data = config_data(build, has_rollout=True)
    meta = {"name": name, "namespace": build.namespace, "labels": selector}
    ports = [{"name": "http", "port": SCORING_PORT, "targetPort": SCORING_PORT, "protocol": "TCP"}]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data},
        _policy(meta, selector),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": selector, "ports": ports},
        },
        _deployment(build, meta, selector, options, data),
    ]


def _deployment(
    build: Build,
    meta: dict[str, Any],
    selector: dict[str, str],
    options: ServingOptions,
    data: dict[str, str],
) -> dict[str, Any]:
    """`kubectl rollout status` gives up when the start has taken longer than the runtime allows:
    the default of ten minutes would be over while a large model is still being fetched."""
    template = _template(build, options, data)
    one = servers.deployment_of(meta, selector, options.replicas, template, _HISTORY)
    deadline = build.template(Role.ROLLOUT).startup_deadline_seconds
    one["spec"]["progressDeadlineSeconds"] = deadline + _FETCH_SECONDS
    return one


def labels(build: Build) -> dict[str, str]:
    """None of the operator's own: it neither watches these objects nor cleans them up."""
    return {
        "app.kubernetes.io/name": "r1reward-serving",
        "app.kubernetes.io/instance": build.job,
        "app.kubernetes.io/component": "serving",
    }


def _template(build: Build, options: ServingOptions, data: dict[str, str]) -> dict[str, Any]:
    shared = pods.shared_volumes(build, Role.ROLLOUT, serving_name(build.job), uses_storage=True)
    token = pods.token_volume("serving-token", options.token_secret, SERVING_TOKEN_PATH)
    server_token = environment.plain("R1_SERVER_TOKEN_FILE", SERVER_TOKEN_PATH)
    vllm = rollout.server(build, VLLM_CONTAINER, SERVER_TOKEN_PATH, port_name="vllm")
    front = pods.Container(
        name=FRONT_CONTAINER,
        image=build.runtime.images.trainer,
        command=["r1", "scoring-front", "--temperature", f"{options.temperature:g}"],
        env=[
            environment.plain("R1_RUN_CONFIG", RUN_CONFIG_PATH),
            environment.plain("R1_TOKEN_FILE", SERVING_TOKEN_PATH),
            server_token,
        ],
        extra=servers.serving(build, Role.EVALUATE, SCORING_PORT, ready="/ready"),
    )
    spec = pods.pod_spec(
        build,
        Role.ROLLOUT,
        [
            pods.container(build, Role.ROLLOUT, vllm, shared),
            # It renders prompts and asks, as evaluate's worker does: that template fits.
            pods.container(build, Role.EVALUATE, front, [*shared, token]),
        ],
        [pods.container(build, Role.ROLLOUT, servers.fetch_model(build, [server_token]), shared)],
        [*shared, token],
        uses_storage=True,
    )
    digest = hashlib.sha256(canonical_json(data)).hexdigest()[:16]
    return {
        "metadata": {
            "labels": pods.pod_labels(build, Role.ROLLOUT, labels(build)),
            # Another configuration makes other pods.
            "annotations": {_DIGEST: digest},
        },
        "spec": spec,
    }


def _policy(meta: dict[str, Any], selector: dict[str, str]) -> dict[str, Any]:
    """The front alone is reached, from the namespace's own pods; what they reach stays open."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {}}],
                    "ports": [{"protocol": "TCP", "port": SCORING_PORT}],
                }
            ],
        },
    }
