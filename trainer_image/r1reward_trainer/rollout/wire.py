# SPDX-License-Identifier: Apache-2.0
"""Requests and answers of a rollout server, as pure functions of values."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1reward_trainer.rollout.types import (
    Completion,
    GenerateRequest,
    GenerateResult,
    PromptMismatch,
    ServerUnavailable,
    StaleWeights,
    WeightVersion,
)

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
}


def identity_proof(token: str, nonce: str, job_uid: str, pod_uid: str) -> str:
    """HMAC-SHA256 by the attempt's token over ``nonce|job uid|pod uid``, in hex."""
    message = f"{nonce}|{job_uid}|{pod_uid}".encode()
    return hmac.new(token.encode(), message, hashlib.sha256).hexdigest()


def image_url(image: bytes) -> str:
    """The image as a data URL; raises ValueError unless it is a PNG or JPEG file."""
    for magic, kind in _MAGIC.items():
        if image.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"
    raise ValueError("an image must be an encoded PNG or JPEG file")


def generate_body(request: GenerateRequest) -> dict[str, Any]:
    """The body of ``POST /inference/v1/generate``.

    Token ids go in and come out, so that no server tokenises anything; ``logprobs: 0`` asks for
    the sampled token's log-prob alone. With rivals, the server wants their number there.
    """
    sampling = request.sampling
    params: dict[str, Any] = {
        "n": sampling.n,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(sampling.stop_token_ids),
        "logprobs": len(sampling.rival_ids),
        "detokenize": False,
    }
    if sampling.rival_ids:
        params["logprob_token_ids"] = list(sampling.rival_ids)
    if request.seed is not None:
        params["seed"] = request.seed
    body: dict[str, Any] = {
        "token_ids": list(request.token_ids),
        "sampling_params": params,
        "return_token_ids": True,
    }
    if request.images:
        body["content_parts"] = [
            {"type": "image_url", "url": image_url(image)} for image in request.images
        ]
    return body


def parse_generated(
    request: GenerateRequest, answer: Any, *, server: str, version: str
) -> GenerateResult:
    """The checked answer.

    Raises :class:`PromptMismatch` when the server's prompt is not the trainer's,
    :class:`StaleWeights` when any token came from other weights than ``version``, and
    :class:`ServerUnavailable` when the answer is malformed (a broken server).
    """
    try:
        prompt = tuple(answer["prompt_token_ids"])
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        versions = {
            span["version"] for choice in choices for span in choice["weight_versions"] or ()
        }
        rivals = request.sampling.rival_ids
        completions = tuple(_completion(choice, rivals) for choice in choices)
    except (KeyError, TypeError, ValueError) as error:
        raise ServerUnavailable(
            f"{server} gave a malformed answer ({type(error).__name__}: {error})"
        ) from error
    if request.expanded_ids is not None and prompt != request.expanded_ids:
        raise PromptMismatch(
            f"request {request.id}: {server} expands the prompt to {len(prompt)} tokens, the "
            f"trainer to {len(request.expanded_ids)}"
            + (
                ""
                if len(prompt) != len(request.expanded_ids)
                else " other ones (another tokenizer)"
            )
            + ": both must use the same processor, and one placeholder per image"
        )
    if versions != {version}:
        raise StaleWeights(f"{server} answered with weights {sorted(versions)}, not {version}")
    if len(completions) != request.sampling.n:
        raise ServerUnavailable(
            f"{server} gave {len(completions)} completions instead of {request.sampling.n}"
        )
    return GenerateResult(request.id, prompt, completions, version, server)


def _completion(choice: Mapping[str, Any], rivals: Sequence[int]) -> Completion:
    token_ids = tuple(int(token) for token in choice["token_ids"])
    content = choice["logprobs"]["content"]
    if tuple(item["token_id"] for item in content) != token_ids:
        raise ValueError("log-probs are of other tokens than those sampled")
    if choice["finish_reason"] not in ("stop", "length"):
        raise ValueError(f"finish reason {choice['finish_reason']!r}")
    return Completion(
        token_ids,
        tuple(float(item["logprob"]) for item in content),
        choice["finish_reason"],
        {
            place: _rivals(content[place], rivals)
            for place, token in enumerate(token_ids)
            if token in rivals
        },
    )


def _rivals(item: Mapping[str, Any], rivals: Sequence[int]) -> tuple[float, ...]:
    found = {one["token_id"]: float(one["logprob"]) for one in item["top_logprobs"]}
    return tuple(found[token] for token in rivals)


def update_info(weights: WeightVersion, presign: Callable[[str], str]) -> dict[str, Any]:
    """The update that a server prepares and loads; every call signs the URLs anew."""
    return {
        "version": weights.version,
        "files": [
            {"url": presign(file.key), "sha256": file.sha256, "bytes": file.bytes}
            for file in weights.files
        ],
        "tensors": None
        if weights.tensors is None
        else {
            name: {"dtype": tensor.dtype, "shape": list(tensor.shape)}
            for name, tensor in weights.tensors.items()
        },
    }
