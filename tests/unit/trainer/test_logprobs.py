# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from r1reward_trainer import logprobs
from r1reward_trainer.batch import Batch, Example, collate
from r1reward_trainer.model import Policy
from r1reward_trainer.render import Renderer
from tests.unit.trainer.conftest import MakeExample, png


def batch_of(examples: Sequence[Example], renderer: Renderer, policy: Policy) -> Batch:
    return collate(examples, renderer.pad_token_id, policy.vision_token_ids)


def different(make_example: MakeExample) -> list[Example]:
    """Two images of different sizes, a prompt without one, responses of different lengths."""
    return [
        make_example("which?", "<think>a</think><answer>1</answer>", png(1)),
        make_example("which of these two?", "<answer>2</answer>", png(2, 28, 56)),
        make_example("a longer question without an image", "<think></think>"),
    ]


def gradient(policy: Policy) -> Tensor:
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


@torch.no_grad()
def test_logprobs_are_those_of_the_whole_softmax(
    policy: Policy, renderer: Renderer, make_example: MakeExample
):
    example = make_example(image=png(1))
    batch = batch_of([example], renderer, policy)
    logits = policy.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        mm_token_type_ids=batch.mm_token_type_ids,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
    ).logits
    expected = torch.log_softmax(logits[0, len(example.prompt_ids) - 1 : -1] / 0.7, dim=-1)
    targets = torch.tensor(example.response_ids).unsqueeze(1)
    torch.testing.assert_close(policy(batch, 0.7)[0], expected.gather(1, targets).squeeze(1))


@torch.no_grad()
def test_swapping_the_image_changes_the_logprobs(
    policy: Policy, renderer: Renderer, make_example: MakeExample
):
    one = policy(batch_of([make_example(image=png(1))], renderer, policy), 1.0)
    two = policy(batch_of([make_example(image=png(2))], renderer, policy), 1.0)
    assert (one - two).abs().max() > 1e-3


@torch.no_grad()
def test_image_tokens_have_positions_in_height_and_width(
    policy: Policy, renderer: Renderer, make_example: MakeExample
):
    batch = batch_of([make_example(image=png(1))], renderer, policy)
    flat = replace(batch, mm_token_type_ids=torch.zeros_like(batch.mm_token_type_ids))
    assert batch.mm_token_type_ids.sum() == 4
    positions, _ = policy.model.model.get_rope_index(
        batch.input_ids, batch.mm_token_type_ids, batch.image_grid_thw
    )
    assert not torch.equal(positions[1], positions[2])
    assert (policy(batch, 1.0) - policy(flat, 1.0)).abs().max() > 1e-4


@torch.no_grad()
def test_padding_changes_nothing(policy: Policy, renderer: Renderer, make_example: MakeExample):
    examples = different(make_example)
    together = policy(batch_of(examples, renderer, policy), 1.0)
    for row, example in enumerate(examples):
        alone = policy(batch_of([example], renderer, policy), 1.0)[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=2e-6, rtol=1e-5)
        assert (together[row, len(alone) :] == 0).all()


def test_micro_batches_have_the_gradient_of_the_whole(
    policy: Policy, renderer: Renderer, make_example: MakeExample
):
    examples = different(make_example)
    policy(batch_of(examples, renderer, policy), 1.0).sum().backward()
    whole = gradient(policy)
    policy.zero_grad()
    for example in examples:
        policy(batch_of([example], renderer, policy), 1.0).sum().backward()
    torch.testing.assert_close(gradient(policy), whole, atol=2e-4, rtol=1e-4)


def test_a_stand_in_without_a_response_adds_nothing_but_reaches_every_parameter(
    policy: Policy, renderer: Renderer, make_example: MakeExample
):
    for image in (png(1), None):
        policy.zero_grad()
        nothing = replace(make_example(image=image), response_ids=())
        logprobs_of_nothing = policy(batch_of([nothing], renderer, policy), 1.0)
        assert logprobs_of_nothing.shape == (1, 0)
        logprobs_of_nothing.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in policy.parameters())


def test_text_alone_reaches_every_parameter_of_a_tower_that_feeds_inner_layers_too():
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    vision: dict[str, Any] = {
        "patch_size": 16, "temporal_patch_size": 2, "depth": 3,
        "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
        "out_hidden_size": 64, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
    }  # fmt: skip
    text = {
        "vocab_size": 300, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rope_scaling": rope,
    }  # fmt: skip
    config = Qwen3VLConfig(text_config=text, vision_config=vision, image_token_id=290)
    model = Qwen3VLForConditionalGeneration(config).train()
    assert len(model.model.visual.deepstack_merger_list) == 2
    patch = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    nothing = torch.empty(0, 3, dtype=torch.int64)
    batch = collate([Example((1, 2, 3), (4, 5), torch.empty(0, patch), nothing)], 0, (290,))
    logprobs.response_logprobs(model, batch, 1.0).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_head_in_chunks_has_the_same_values_and_gradient(
    policy: Policy,
    renderer: Renderer,
    make_example: MakeExample,
    monkeypatch: pytest.MonkeyPatch,
):
    batch = batch_of(different(make_example), renderer, policy)
    at_once = policy(batch, 1.0)
    at_once.sum().backward()
    whole = gradient(policy)
    policy.zero_grad()
    monkeypatch.setattr(logprobs, "HEAD_CHUNK_TOKENS", 7)
    in_chunks = policy(batch, 1.0)
    in_chunks.sum().backward()
    torch.testing.assert_close(in_chunks, at_once)
    torch.testing.assert_close(gradient(policy), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_sampled_image_token_is_no_image(
    policy: Policy, renderer: Renderer, make_example: MakeExample
):
    example = make_example(image=png(1))
    ids = (example.response_ids[0], renderer.image_token_id, *example.response_ids[2:])
    batch = batch_of([replace(example, response_ids=ids)], renderer, policy)
    assert batch.targets[0].tolist() == list(ids)
    assert torch.isfinite(policy(batch, 1.0)).all()
