# SPDX-License-Identifier: Apache-2.0
"""Log-probs of responses, with the output head on response tokens alone.

Needs torch and transformers alone. In a batch of R1-Reward only about a fifth of
the tokens are response; fp32 logits of the others would be most of the memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from r1reward_trainer.batch import Batch

HEAD_CHUNK_TOKENS = 1024
"""Logits of so many tokens exist at once (0.6 GB in fp32 at a vocabulary of 152k)."""


def response_logprobs(model: Any, batch: Batch, temperature: float) -> Tensor:
    """log pi(token | what stands before it) at a temperature, for response tokens.

    Args:
        model: a transformers image-text-to-text model: `model.model` gives hidden states,
            `get_output_embeddings()` the head. It computes its own M-RoPE position ids.
        batch: of `collate`.
        temperature: logits are divided by it, as the rollout servers do.

    Returns:
        [B, R] float32, 0 outside `batch.mask`; carries the gradient.
    """
    hidden = _hidden_states(model, batch)
    rows = torch.arange(len(hidden), device=hidden.device).unsqueeze(1).expand_as(batch.positions)
    selected = hidden[rows[batch.mask], batch.positions[batch.mask]]
    targets = batch.targets[batch.mask]
    head = model.get_output_embeddings()
    chunks = [
        _head_logprobs(head, part, target, temperature)
        for part, target in zip(
            selected.split(HEAD_CHUNK_TOKENS), targets.split(HEAD_CHUNK_TOKENS), strict=True
        )
    ]
    # index_put instead of a loop over rows: one gradient path, also for an empty mask.
    out = torch.zeros(batch.mask.shape, dtype=torch.float32, device=hidden.device)
    return out.masked_scatter(batch.mask, torch.cat(chunks))


def _hidden_states(model: Any, batch: Batch) -> Tensor:
    """[B, T, hidden]."""
    if len(batch.image_grid_thw):
        nothing = None
        images = {"pixel_values": batch.pixel_values, "image_grid_thw": batch.image_grid_thw}
    else:
        # Before the decoder, where the tower runs in other processes: sharded modules are
        # gathered in the order in which they run, and that must be the same everywhere.
        nothing = _unseen_image(model, batch)
        images = {}
    output = model.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        mm_token_type_ids=batch.mm_token_type_ids,
        use_cache=False,
        **images,
    )
    hidden = output.last_hidden_state
    return hidden if nothing is None else hidden + nothing.to(hidden.dtype)


def _unseen_image(model: Any, batch: Batch) -> Tensor:
    """0, out of the vision tower: a sharded tower must run on every process or on none, and
    another process's batch may have images."""
    side = model.config.vision_config.spatial_merge_size
    patches = batch.pixel_values.new_zeros(side * side, batch.pixel_values.shape[1])
    grid = torch.tensor([[1, side, side]], device=patches.device)
    found = model.get_image_features(patches, grid)
    # Some towers (Qwen3-VL) hand features of inner layers to the decoder as well.
    inner = getattr(found, "deepstack_features", None) or ()
    levels = [torch.cat(tuple(level)).sum() for level in (found.pooler_output, *inner)]
    return 0.0 * torch.stack(levels).sum()


def _head_logprobs(head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """[N] float32 from hidden [N, H]; the logits are computed again in the backward pass."""

    def compute(part: Tensor) -> Tensor:
        logits = head(part).float() / temperature
        return -F.cross_entropy(logits, targets, reduction="none")

    if torch.is_grad_enabled() and hidden.requires_grad:
        return checkpoint(compute, hidden, use_reentrant=False)  # pyright: ignore[reportReturnType]
    return compute(hidden)
