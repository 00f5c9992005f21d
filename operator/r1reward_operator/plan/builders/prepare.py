# SPDX-License-Identifier: Apache-2.0
"""The prepare stage: a Job with the credentials of storage and of the model's source."""

from typing import Any

from r1reward_api.constants import Role
from r1reward_operator.plan.builders import environment, pods
from r1reward_operator.plan.builders.build import Build
from r1reward_operator.plan.builders.workers import batch_job

CLAIM_PATH = "/mnt/model"
"""Where the trainer image looks for the claim of a pvc:// model."""


def prepare_job(build: Build) -> dict[str, Any]:
    """The Job of one attempt of prepare."""
    model = build.spec.model
    volumes: list[pods.Volume] = []
    if model.uri.startswith("pvc://"):
        name = model.uri.removeprefix("pvc://").split("/", 1)[0]
        volumes.append(pods.claim("model-claim", name, CLAIM_PATH, read_only=True))
    return batch_job(build, Role.PREPARE, environment.hub_token(model), volumes)
