# SPDX-License-Identifier: Apache-2.0
"""The run configuration: all that a stage's pods are told, frozen at the attempt's start.

Mounted from an immutable ConfigMap at RUN_CONFIG_PATH. Holds no secret.
"""

from typing import Annotated

from pydantic import Field

from r1reward_api.base import ApiModel
from r1reward_api.constants import Stage
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import ModelServing


class JobIdentity(ApiModel):
    """Whose run this is."""

    name: str
    """The R1RewardJob's name."""
    namespace: str
    """Its namespace."""
    uid: str
    """Its UID."""


class InputRef(ApiModel):
    """An output of an earlier stage, to be read by this one."""

    stage: Stage
    """The stage that made it."""
    key: str
    """That stage's key."""
    output: str
    """The output's name in the stage's manifest."""
    digest: str
    """Expected digest; another one is refused."""


class Services(ApiModel):
    """Where this attempt's services are."""

    rollout_host: str | None = None
    """Headless Service of the rollout servers, `<name>.<namespace>.svc`."""
    rollout_port: int = 8000
    """Port of each rollout pod."""
    verifier_url: str | None = None
    """Base URL of the verifier."""
    judge_url: str | None = None
    """Base URL (…/v1) of the judge, whether its own Deployment or an endpoint."""


class RunConfig(ApiModel):
    """All that one attempt of a stage needs to know."""

    version: int = 1
    """Of this format."""
    job: JobIdentity
    """Whose run this is."""
    stage: Stage
    """The stage to run."""
    attempt: Annotated[int, Field(ge=1)]
    """The attempt, from 1."""
    key: str | None = None
    """The stage's key; prepare computes its own."""
    spec: R1RewardJobSpec
    """The job's spec as frozen."""
    serving: ModelServing
    """Model length, dtype and caps from the runtime."""
    world_size: Annotated[int, Field(ge=1)] = 1
    """Trainer processes."""
    rollout_image: str = ""
    """Part of rl's and evaluate's keys."""
    inputs: dict[str, InputRef] = {}
    """By the name that the stage uses; see `r1reward_api.stages`."""
    services: Services = Services()
    """Where the services are."""
    progress_url: str | None = None
    """Where progress is posted; none: not reported."""
    grace_period_seconds: int = 30
    """Seconds between SIGTERM and SIGKILL."""

    @property
    def root(self) -> str:
        """`<storage.uri>/<namespace>`: the root of everything the job reads and writes."""
        return f"{self.spec.storage.uri.rstrip('/')}/{self.job.namespace}"

    @property
    def stage_prefix(self) -> str:
        """`stages/<stage>/<key>`, relative to the root."""
        return stage_prefix(self.stage, self.key or "unkeyed")

    @property
    def run_prefix(self) -> str:
        """`stages/<stage>/<key>/runs/<job uid>`: the job writes only below it."""
        return f"{self.stage_prefix}/runs/{self.job.uid}"

    @property
    def attempt_prefix(self) -> str:
        """`…/runs/<job uid>/attempt-<n>`."""
        return f"{self.run_prefix}/attempt-{self.attempt}"


def stage_prefix(stage: Stage, key: str) -> str:
    """Where a stage with this key lies, relative to the namespace's root."""
    return f"stages/{stage}/{key}"
