# SPDX-License-Identifier: Apache-2.0
"""Requests and answers as pure functions of values."""

import dataclasses
from typing import Any

import pytest

from r1reward_rollout.middleware import Credentials
from r1reward_rollout.update_info import FileSpec, UpdateInfo, parse_update_info
from r1reward_rollout.update_info import TensorSpec as ServedTensor
from r1reward_trainer.rollout import (
    Completion,
    GenerateRequest,
    GenerateResult,
    PromptMismatch,
    Sampling,
    ServerUnavailable,
    StaleWeights,
    TensorSpec,
    WeightFile,
    WeightVersion,
    collapse_image_tokens,
)
from r1reward_trainer.rollout.wire import (
    generate_body,
    identity_proof,
    image_url,
    parse_generated,
    update_info,
)

PNG = b"\x89PNG\r\n\x1a\n..."
REQUEST = GenerateRequest(
    id="p0",
    token_ids=(1, 9, 2),
    sampling=Sampling(max_tokens=4, temperature=0.7, n=1, stop_token_ids=(3,)),
    images=(PNG,),
    expanded_ids=(1, 9, 9, 2),
    seed=5,
)


def answer(**changes: Any) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "token_ids": [4, 3],
        "logprobs": {
            "content": [{"token_id": 4, "logprob": -0.5}, {"token_id": 3, "logprob": -1.5}]
        },
        "finish_reason": "stop",
        "weight_versions": [{"version": "1-2-a", "start": 0, "end": 2}],
    }
    prompt = changes.pop("prompt_token_ids", [1, 9, 9, 2])
    return {"prompt_token_ids": prompt, "choices": [choice | changes]}


def test_a_request_sends_tokens_and_images_and_samples_the_policy_as_it_is() -> None:
    assert generate_body(REQUEST) == {
        "token_ids": [1, 9, 2],
        "sampling_params": {
            "n": 1,
            "temperature": 0.7,
            "max_tokens": 4,
            "stop_token_ids": [3],
            "logprobs": 0,
            "detokenize": False,
            "seed": 5,
        },
        "return_token_ids": True,
        "content_parts": [{"type": "image_url", "url": "data:image/png;base64,iVBORw0KGgouLi4="}],
    }


def test_a_request_without_images_and_seed_leaves_both_to_the_server() -> None:
    body = generate_body(dataclasses.replace(REQUEST, images=(), seed=None))
    assert "content_parts" not in body
    assert "seed" not in body["sampling_params"]


def test_where_a_rival_is_sampled_the_log_probs_of_all_rivals_are_answered() -> None:
    sampling = dataclasses.replace(REQUEST.sampling, rival_ids=(5, 4))
    request = dataclasses.replace(REQUEST, sampling=sampling)
    params = generate_body(request)["sampling_params"]
    assert (params["logprobs"], params["logprob_token_ids"]) == (2, [5, 4])
    top = [{"token_id": 4, "logprob": -0.5}, {"token_id": 5, "logprob": -1.0}]
    content = [
        {"token_id": 4, "logprob": -0.5, "top_logprobs": top},
        {"token_id": 3, "logprob": -1.5, "top_logprobs": top},
    ]
    told = parse_generated(
        request, answer(logprobs={"content": content}), server="s", version="1-2-a"
    )
    assert told.completions[0].rivals == {0: (-1.0, -0.5)}


def test_a_rivals_log_prob_that_is_missing_is_a_broken_server() -> None:
    sampling = dataclasses.replace(REQUEST.sampling, rival_ids=(5, 4))
    content = [
        {"token_id": 4, "logprob": -0.5, "top_logprobs": [{"token_id": 4, "logprob": -0.5}]},
        {"token_id": 3, "logprob": -1.5, "top_logprobs": []},
    ]
    with pytest.raises(ServerUnavailable, match="malformed answer"):
        parse_generated(
            dataclasses.replace(REQUEST, sampling=sampling),
            answer(logprobs={"content": content}),
            server="s",
            version="1-2-a",
        )


def test_an_image_that_is_neither_png_nor_jpeg_is_refused() -> None:
    with pytest.raises(ValueError, match="PNG or JPEG"):
        image_url(b"GIF89a")


def test_an_answer_becomes_completions_with_their_log_probs() -> None:
    assert parse_generated(REQUEST, answer(), server="s", version="1-2-a") == GenerateResult(
        id="p0",
        prompt_token_ids=(1, 9, 9, 2),
        completions=(Completion((4, 3), (-0.5, -1.5), "stop"),),
        weight_version="1-2-a",
        server="s",
    )


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"prompt_token_ids": [1, 9, 9, 9, 2]}, PromptMismatch, "to 5 tokens, the trainer to 4"),
        ({"prompt_token_ids": [1, 9, 9, 7]}, PromptMismatch, "another tokenizer"),
        (
            {"weight_versions": [{"version": "default"}, {"version": "1-2-a"}]},
            StaleWeights,
            "with weights",
        ),
        ({"weight_versions": None}, StaleWeights, "with weights"),
        ({"finish_reason": "abort"}, ServerUnavailable, "finish reason 'abort'"),
        ({"token_ids": [4]}, ServerUnavailable, "log-probs are of other tokens"),
        ({"logprobs": None}, ServerUnavailable, "malformed answer"),
    ],
)
def test_an_answer_that_cannot_be_trained_on_is_refused(
    changes: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        parse_generated(REQUEST, answer(**changes), server="s", version="1-2-a")


def test_an_answer_with_too_few_completions_is_a_broken_server() -> None:
    two = dataclasses.replace(REQUEST, sampling=dataclasses.replace(REQUEST.sampling, n=2))
    with pytest.raises(ServerUnavailable, match="1 completions instead of 2"):
        parse_generated(two, answer(), server="s", version="1-2-a")


def test_each_run_of_image_tokens_becomes_one_placeholder() -> None:
    assert collapse_image_tokens((9, 9, 1, 9, 9, 9, 2, 9), 9) == (9, 1, 9, 2, 9)


def test_both_sides_compute_the_same_proof_of_identity() -> None:
    credentials = Credentials(token="t" * 16, job_uid="job", pod_uid="pod")
    assert identity_proof("t" * 16, "nonce", "job", "pod") == credentials.proof("nonce")


def test_a_server_reads_the_update_that_the_trainer_writes() -> None:
    weights = WeightVersion(
        "1-2-a", (WeightFile("k", "a" * 64, 7),), {"w": TensorSpec("F32", (2, 3))}
    )
    written = update_info(weights, lambda key: f"http://store/{key}?signature")
    assert parse_update_info(written) == UpdateInfo(
        "1-2-a",
        (FileSpec("http://store/k?signature", "a" * 64, 7),),
        {"w": ServedTensor("F32", (2, 3))},
    )
