# SPDX-License-Identifier: Apache-2.0
"""The command line and environment of a rollout server, from a small configuration."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

DEFAULT_CONFIG_FILE = "/etc/r1reward/rollout.json"

Dtype = Literal["float32", "bfloat16", "float16"]

_KEEP_ALIVE_SECONDS = "60"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """What a rollout server serves. JSON has the same names in camelCase.

    ``max_images`` is per prompt; ``kv_cache_bytes`` of 0 leaves the cache's size to vLLM;
    ``max_pixels`` and ``min_pixels`` of 0 leave the processor's own limits (they must be those
    of the trainer). ``extra_args`` go last, as they are.
    """

    model: str
    dtype: Dtype
    max_model_len: int
    max_images: int = 1
    min_pixels: int = 0
    max_pixels: int = 0
    kv_cache_bytes: int = 0
    max_num_seqs: int = 0
    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    seed: int = 0
    host: str = "0.0.0.0"
    port: int = 8000
    extra_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model must be the path of a folder")
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype must be one of {get_args(Dtype)}, not {self.dtype!r}")
        for name in ("max_model_len", "tensor_parallel_size", "port"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


def parse_config(text: str) -> ServeConfig:
    """The configuration in JSON text; raises ValueError naming an unknown or wrong field."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("the rollout configuration must be a JSON object")
    known = {_camel(field.name): field for field in fields(ServeConfig)}
    arguments: dict[str, Any] = {}
    for name, item in value.items():
        field = known.get(name)
        if field is None:
            raise ValueError(f"unknown field {name!r}; known are {', '.join(sorted(known))}")
        expected = {"int": int, "bool": bool, "tuple": list}.get(_kind(field.type), str)
        if not isinstance(item, expected) or (expected is int and isinstance(item, bool)):
            raise ValueError(f"{name} must be of type {expected.__name__}, not {item!r}")
        arguments[field.name] = tuple(map(str, item)) if isinstance(item, list) else item
    try:
        return ServeConfig(**arguments)
    except TypeError as error:
        raise ValueError(f"the rollout configuration is incomplete: {error}") from error


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _kind(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation)).split("[")[0]


def load_config(environ: Mapping[str, str]) -> ServeConfig:
    """Read the file that R1_ROLLOUT_CONFIG names."""
    path = Path(environ.get("R1_ROLLOUT_CONFIG") or DEFAULT_CONFIG_FILE)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"the configuration {path} (R1_ROLLOUT_CONFIG): {error}") from error
    return parse_config(text)


def command(config: ServeConfig) -> list[str]:
    """The argument vector of the server (the module: the CPU build's console script fails)."""
    arguments = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *("--host", config.host),
        *("--port", str(config.port)),
        *("--model", config.model),
        *("--served-model-name", "policy"),
        *("--dtype", config.dtype),
        *("--max-model-len", str(config.max_model_len)),
        *("--tensor-parallel-size", str(config.tensor_parallel_size)),
        *("--seed", str(config.seed)),
        *("--limit-mm-per-prompt", json.dumps({"image": config.max_images, "video": 0})),
        # images come inside the requests: the server fetches nothing for anyone
        *("--allowed-media-domains", "none.invalid"),
        *("--middleware", "r1reward_rollout.asgi.JobTokenMiddleware"),
        *("--worker-extension-cls", "r1reward_rollout.worker.WeightPreparation"),
        *("--weight-transfer-config", json.dumps({"backend": "object_store"})),
        # log-probs at the request's temperature, as the trainer computes them
        *("--logprobs-mode", "processed_logprobs"),
        # tokens in, tokens out
        "--enable-scale-out",
        "--disable-fastapi-docs",
    ]
    if config.min_pixels or config.max_pixels:
        pixels = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
        set_pixels = {name: count for name, count in pixels.items() if count}
        arguments += ["--mm-processor-kwargs", json.dumps(set_pixels)]
    if config.kv_cache_bytes:
        arguments += ["--kv-cache-memory-bytes", str(config.kv_cache_bytes)]
    if config.max_num_seqs:
        arguments += ["--max-num-seqs", str(config.max_num_seqs)]
    if config.enforce_eager:
        arguments.append("--enforce-eager")
    return [*arguments, *config.extra_args]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: the caller's, with what a rollout server depends on.

    Dev mode opens the pause and update routes (behind the token); the keep-alive is longer than
    that of the client, so that no request meets a connection that is just being closed.
    """
    return {
        **environ,
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": _KEEP_ALIVE_SECONDS,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
