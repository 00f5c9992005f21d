# SPDX-License-Identifier: Apache-2.0
"""A judge of the job's own: stock vLLM that speaks the OpenAI protocol.

It answers nothing else, so nobody can ask it for its log: it stores that itself, to the one URL
that its init container leaves.
"""

from typing import Any

from r1reward_api.constants import JUDGE_PORT, MAIN_CONTAINER, Role
from r1reward_api.names import attempt_token_secret
from r1reward_api.resource.common import SecretKeyRef
from r1reward_operator.plan.builders import environment, pods, servers
from r1reward_operator.plan.builders.build import Build
from r1reward_operator.plan.builders.config import BASE_MODEL_FOLDER

SERVED_NAME = "judge"


def judge(build: Build, model: str, replicas: int) -> list[dict[str, Any]]:
    """Service and Deployment.

    Args:
        build: the attempt.
        model: URI of the judge's weights.
        replicas: servers.
    """
    token = attempt_token_secret(build.job, build.config.job.uid, build.stage, build.attempt)
    main = pods.Container(
        name=MAIN_CONTAINER,
        image=build.runtime.images.rollout,
        command=_command(build),
        env=[
            # vLLM demands it as the bearer token of every /v1 path.
            environment.from_secret("VLLM_API_KEY", SecretKeyRef(name=token, key="token")),
            environment.plain("HF_HUB_OFFLINE", "1"),
            environment.plain("VLLM_NO_USAGE_STATS", "1"),
            environment.plain("DO_NOT_TRACK", "1"),
            *environment.storage_trust(build.spec.storage),
        ],
        extra=servers.serving(build, Role.JUDGE, JUDGE_PORT),
    )
    source = [environment.plain("R1_FETCH_URI", model)]
    if model.startswith("hf://"):
        source += environment.hub_token(build.spec.model)
    fetch = servers.fetch_model(build, source)
    template = pods.pod_template(build, Role.JUDGE, main, init=[fetch], uses_storage=True)
    return [
        servers.service_of(build, Role.JUDGE, JUDGE_PORT, headless=False),
        servers.deployment(build, Role.JUDGE, replicas, template),
    ]


def _command(build: Build) -> list[str]:
    serving = build.config.serving
    cache: list[str] = []
    if serving.kv_cache_bytes is not None:
        cache = ["--kv-cache-memory-bytes", str(serving.kv_cache_bytes)]
    return [
        *("python", "-m", "r1reward_rollout.keep"),
        "python",
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--host", "0.0.0.0"),
        *("--port", str(JUDGE_PORT)),
        *("--model", BASE_MODEL_FOLDER),
        *("--served-model-name", SERVED_NAME),
        *("--dtype", serving.dtype),
        # The judge reads other texts than the policy: as long as its model and memory allow.
        *("--max-model-len", "auto"),
        *("--tensor-parallel-size", str(serving.tensor_parallel_size)),
        *cache,
        *serving.extra_args,
    ]
