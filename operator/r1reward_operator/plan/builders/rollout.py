# SPDX-License-Identifier: Apache-2.0
"""The rollout servers of rl and evaluate: vLLM with the job's token on every path."""

from typing import Any

from r1reward_api.constants import (
    ATTEMPT_TOKEN_PATH,
    MAIN_CONTAINER,
    ROLLOUT_PORT,
    RUN_CONFIG_PATH,
    Role,
)
from r1reward_operator.plan.builders import environment, pods, servers
from r1reward_operator.plan.builders.build import Build
from r1reward_operator.plan.builders.config import ROLLOUT_CONFIG_KEY

_CONFIG_PATH = f"{RUN_CONFIG_PATH.rsplit('/', 1)[0]}/{ROLLOUT_CONFIG_KEY}"


def server(build: Build, name: str, token_path: str, port_name: str = "http") -> pods.Container:
    """The container of one server.

    Args:
        build: what is built.
        name: of the container.
        token_path: file with the token that it demands.
        port_name: of its port.
    """
    return pods.Container(
        name=name,
        image=build.runtime.images.rollout,
        command=["python", "-m", "r1reward_rollout"],
        env=[
            environment.plain("R1_ROLLOUT_CONFIG", _CONFIG_PATH),
            environment.plain("R1_TOKEN_FILE", token_path),
            *servers.identity(build),
            *environment.storage_trust(build.spec.storage),
        ],
        extra=servers.serving(build, Role.ROLLOUT, ROLLOUT_PORT, name=port_name),
    )


def rollout(build: Build, replicas: int) -> list[dict[str, Any]]:
    """Service, headless since clients talk to each server, and Deployment."""
    main = server(build, MAIN_CONTAINER, ATTEMPT_TOKEN_PATH)
    template = pods.pod_template(
        build,
        Role.ROLLOUT,
        main,
        init=[servers.fetch_model(build)],
        volumes=[pods.attempt_token(build)],
        uses_storage=True,
    )
    return [
        servers.service_of(build, Role.ROLLOUT, ROLLOUT_PORT, headless=True),
        servers.deployment(build, Role.ROLLOUT, replicas, template),
    ]
