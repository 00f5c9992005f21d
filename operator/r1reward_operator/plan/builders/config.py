# SPDX-License-Identifier: Apache-2.0
"""The immutable ConfigMap: what the attempt's pods are told."""

import json
from typing import Any

from r1reward_api.constants import MODEL_PATH, ROLLOUT_PORT, Stage
from r1reward_api.names import run_config_map
from r1reward_operator.plan.builders.build import Build, metadata

RUN_CONFIG_KEY = "run.json"
ROLLOUT_CONFIG_KEY = "rollout.json"
BASE_MODEL_FOLDER = f"{MODEL_PATH}/base"


def config_map(build: Build, has_rollout: bool) -> dict[str, Any]:
    """The ConfigMap of an attempt."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(build, run_config_map(build.job, build.stage, build.attempt)),
        "immutable": True,
        "data": config_data(build, has_rollout),
    }


def config_data(build: Build, has_rollout: bool) -> dict[str, str]:
    """Run configuration, and where there are rollout servers, theirs."""
    data = {RUN_CONFIG_KEY: _text(build.config.to_wire())}
    if has_rollout:
        data[ROLLOUT_CONFIG_KEY] = _text(rollout_config(build))
    return data


def rollout_config(build: Build) -> dict[str, Any]:
    """What `python -m r1reward_rollout` reads (its ServeConfig)."""
    serving, data, spec = build.config.serving, build.spec.data, build.spec
    seed = spec.rl.seed if build.stage is Stage.RL and spec.rl else spec.evaluate.seed
    return {
        "model": BASE_MODEL_FOLDER,
        "dtype": serving.dtype,
        "maxModelLen": serving.max_model_length,
        "maxImages": serving.images_per_prompt,
        "minPixels": data.min_pixels,
        "maxPixels": data.max_pixels,
        "kvCacheBytes": serving.kv_cache_bytes or 0,
        "tensorParallelSize": serving.tensor_parallel_size,
        "seed": seed,
        "port": ROLLOUT_PORT,
        "extraArgs": list(serving.extra_args),
    }


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
