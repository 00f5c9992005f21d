# SPDX-License-Identifier: Apache-2.0
"""State that is saved in the middle of a step is as good as that of its beginning."""

from pathlib import Path

import pytest
import torch

from r1reward_api.resource.runtime import ModelServing
from r1reward_api.resource.training import Optimizer
from r1reward_trainer import model, optim, training_state
from r1reward_trainer.batch import collate
from r1reward_trainer.distributed import Peers
from r1reward_trainer.render import Renderer
from tests.unit.trainer.conftest import MakeExample, png

SHARDED = ModelServing(dtype="bfloat16", max_model_length=512)


def trained(folder: Path, alone: Peers) -> tuple[model.Policy, torch.optim.AdamW]:
    policy = model.load_policy(folder, SHARDED, alone.mesh)
    return policy, optim.adamw(policy, Optimizer())


def test_state_saved_after_a_pass_without_gradient_is_restored_to_the_bit(
    alone: Peers,
    model_folder: Path,
    renderer: Renderer,
    make_example: MakeExample,
    tmp_path: Path,
):
    policy, optimizer = trained(model_folder, alone)
    example = make_example(image=png(1))
    batch = collate([example], renderer.pad_token_id, policy.vision_token_ids)
    policy(batch, 1.0).sum().backward()
    optim.update(optimizer, policy, 1e-3, 1.0)
    kept = [training_state.local_rows(p).rows.clone() for p in policy.parameters()]

    with torch.no_grad():  # the next step, up to where it waits for rewards
        policy(batch, 1.0)
    training_state.save_state(tmp_path, policy, optimizer, rank=0)

    again, optimizer_again = trained(model_folder, alone)
    training_state.load_state(tmp_path, again, optimizer_again)
    for before, parameter in zip(kept, again.parameters(), strict=True):
        assert torch.equal(before, training_state.local_rows(parameter).rows)
        state = optimizer_again.state[parameter]
        assert state["step"] == 1
        assert training_state.local_rows(state["exp_avg"]).rows.isfinite().all()
    assert any(
        training_state.local_rows(optimizer_again.state[p]["exp_avg"]).rows.any()
        for p in again.parameters()
    )


def test_a_parameter_that_the_optimizer_does_not_know_is_not_saved_as_if_it_did(
    alone: Peers,
    model_folder: Path,
    renderer: Renderer,
    make_example: MakeExample,
    tmp_path: Path,
):
    policy, optimizer = trained(model_folder, alone)
    batch = collate([make_example()], renderer.pad_token_id, policy.vision_token_ids)
    policy(batch, 1.0).sum().backward()
    next(iter(policy.parameters())).grad = None
    optimizer.step()
    with pytest.raises(RuntimeError, match="no state of model"):
        training_state.save_state(tmp_path, policy, optimizer, rank=0)
