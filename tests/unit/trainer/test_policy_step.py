# SPDX-License-Identifier: Apache-2.0
import math
import threading
from concurrent.futures import Future

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1reward_api.reasons import Reason
from r1reward_api.resource.training import Algorithm, RlSpec, Sampling
from r1reward_trainer.distributed import Peers, is_peer_lost
from r1reward_trainer.outcome import InfrastructureError, ProgramError
from r1reward_trainer.policy_step import (
    Share,
    advantages_of,
    backward,
    layout,
    logprob_difference,
    logprobs_of,
    make_share,
)
from r1reward_trainer.rollout import NoHealthyServer, PromptMismatch
from r1reward_trainer.rollout.failures import rollout_errors
from r1reward_trainer.sampling import Answer, sample_seed
from r1reward_trainer.services import unless_stopped
from r1reward_trainer.training import check_finite
from tests.unit.trainer.conftest import png


def spec_of(**fields: object) -> RlSpec:
    given_fields = {
        "sampling": Sampling(prompts_per_step=4, samples_per_prompt=2, temperature=1.0),
        "mini_batch_size": 4,
        "micro_batch_size": 3,
        **fields,
    }
    return RlSpec(**given_fields)  # pyright: ignore[reportArgumentType]


@given(
    prompts=st.integers(1, 12),
    samples=st.integers(1, 4),
    parts=st.integers(1, 4),
    world_size=st.integers(1, 5),
)
def test_every_answer_has_one_process_and_one_update(
    prompts: int, samples: int, parts: int, world_size: int
):
    answers = prompts * samples
    size = answers // parts if answers % parts == 0 else answers
    spec = spec_of(
        sampling=Sampling(prompts_per_step=prompts, samples_per_prompt=samples),
        mini_batch_size=size,
    )
    plans = [layout(spec, rank, world_size) for rank in range(world_size)]
    for update in range(answers // size):
        members = sorted(i for plan in plans for i in plan.mini_batches[update])
        assert members == list(range(update * size, (update + 1) * size))
    for plan in plans:
        assert {i // samples for i in plan.own} <= set(plan.places)
        assert plan.places, "a process without answers still needs an image to take part with"
    assert len({plan.micro_batches for plan in plans}) == 1


def test_each_answer_has_a_seed_of_its_own_and_the_same_after_a_restart():
    seeds = [
        sample_seed(seed, step, place, sample)
        for seed in range(2)
        for step in range(5)
        for place in range(5)
        for sample in range(5)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert sample_seed(0, 1, 2, 3) == 309482102


def share_of(mask: list[list[bool]]) -> Share:
    kept = torch.tensor(mask)
    return Share([], kept, torch.zeros(kept.shape), torch.tensor([0]))


def test_a_batch_of_one_wrong_answer_loses_it_to_the_filter_only_in_stable_reinforce(alone: Peers):
    share = share_of([[True]] * 256)
    rewards = torch.ones(256, dtype=torch.float64)
    rewards[0] = 0.0
    stable, filtered = advantages_of(rewards, share, None, Algorithm(), alone)
    assert stable[0, 0] == 0.0
    assert stable[1, 0] == pytest.approx(0.0626224, abs=1e-6)
    assert filtered.tolist() == [1.0, 256.0]

    plain, filtered = advantages_of(
        rewards, share, None, Algorithm(name="ReinforcePlusPlus"), alone
    )
    assert plain[0, 0] == pytest.approx(-(255**0.5), abs=1e-4)
    assert filtered.tolist() == [0.0, 256.0]


def test_the_released_filter_is_used_only_when_asked_for(alone: Peers):
    share = share_of([[True]] * 4)
    rewards = torch.tensor([2.0, 2.0, 2.0, 0.5])
    paper, _ = advantages_of(rewards, share, None, Algorithm(), alone)
    released, _ = advantages_of(rewards, share, None, Algorithm(release_compatible=True), alone)
    assert paper[3, 0] == pytest.approx(-1.73205, abs=1e-4)
    assert released[3, 0] == 0.0


def test_a_kl_penalty_lowers_the_advantage_of_answers_far_from_the_reference(alone: Peers):
    share = share_of([[True, True], [True, True]])
    kl = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    advantage, _ = advantages_of(
        torch.tensor([1.0, 1.0]), share, kl, Algorithm(kl_coefficient=0.1), alone
    )
    assert (advantage[0] > advantage[1]).all()


def test_the_first_update_starts_at_ratio_1_and_its_gradient_does_not_depend_on_the_cut(
    alone: Peers, policy, renderer
):
    rows = [renderer.prompt("which?", "left", "right", [png(i)] if i else []) for i in range(4)]
    prompts = dict(enumerate(rows))
    texts = ["<answer>1</answer>", "<think></think>", "<answer>2</answer>", "x"] * 2
    answers = [
        Answer(f"0-{i // 2}-{i % 2}", i // 2, renderer.response_ids(text), (), False)
        for i, text in enumerate(texts)
    ]
    answers = [
        Answer(a.id, a.place, a.response_ids, (0.0,) * len(a.response_ids), False) for a in answers
    ]
    gradients = []
    for size in (1, 3, 8):
        spec = spec_of(mini_batch_size=8, micro_batch_size=size)
        plan = layout(spec, 0, 1)
        share = make_share(plan, answers, prompts, size, renderer, policy)
        old = logprobs_of(policy, share, 1.0, alone.device)
        advantage = torch.linspace(-1, 1, 8, dtype=torch.float64).unsqueeze(1) * share.mask
        (parts,) = share.mini_batches
        statistics = backward(policy, parts, old, advantage, spec, alone)
        tokens, beyond, held, minus_log_ratio = statistics[1:].tolist()
        assert (tokens, beyond, held, minus_log_ratio) == (share.mask.sum(), 0, 0, 0)
        assert statistics[0] == pytest.approx(0.0, abs=1e-6)
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
        policy.zero_grad()
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-4, rtol=1e-3)


def test_the_difference_from_the_servers_counts_response_tokens_alone():
    share = share_of([[True, True], [True, False]])
    old = torch.tensor([[-1.0, 1.0], [0.5, 99.0]])
    assert logprob_difference(old, share).tolist() == [2.5, 3.0]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf)])
def test_a_broken_update_is_diagnosed(loss: float, norm: float):
    with pytest.raises(ProgramError) as caught:
        check_finite(7, loss, norm, 1e-3, "rows a, b")
    assert caught.value.reason == Reason.NON_FINITE_LOSS
    for part in ("step 7", "rows a, b", "0.001", "learningRate"):
        assert part in caught.value.message


def test_waiting_for_a_service_ends_with_sigterm_or_with_the_result():
    stop = threading.Event()
    done: Future[int] = Future()
    done.set_result(3)
    assert unless_stopped(done, stop) == 3
    stop.set()
    assert unless_stopped(Future(), stop) is None


def test_no_server_is_a_fault_of_the_infrastructure_and_another_prompt_is_not():
    with pytest.raises(InfrastructureError) as caught, rollout_errors():
        raise NoHealthyServer("none")
    assert caught.value.reason == Reason.ROLLOUT_UNAVAILABLE
    with pytest.raises(ProgramError), rollout_errors():
        raise PromptMismatch("other")


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer", True),
        ("[Rank 0]: Ranks 1 failed to pass monitoredBarrier in 1000 ms", True),
        ("NCCL communicator was aborted", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_lost_peer_is_told_from_a_fault_of_the_program(text: str, lost: bool):
    assert is_peer_lost(RuntimeError(text)) is lost
