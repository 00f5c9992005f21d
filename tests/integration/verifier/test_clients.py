# SPDX-License-Identifier: Apache-2.0
"""OpenRLHF, verl and TRL, as released, get their rewards from the running verifier."""

import asyncio
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1reward_api.resource.training import Algorithm
from r1reward_trainer.render import chain
from r1reward_trainer.verifier import reward_function
from r1reward_trainer.verifier.app import create_app
from r1reward_trainer.verifier.judge import Judge, JudgeOptions
from r1reward_trainer.verifier.scoring import Scoring
from r1reward_trainer.verifier.service import RewardService
from tests.integration.rollout.tiny_model import build_processor
from tests.integration.verifier.released import OPENRLHF, TRL, VERL, released
from tests.unit.verifier.conftest import TOKEN, served
from tests.unit.verifier.judge_stub import JudgeStub

PROMPT = "<|im_start|>user\nWhich is better?<|im_end|>\n<|im_start|>assistant\n"
ANSWERS: dict[str, tuple[str, float, int, int, int]] = {
    "consistent": (chain(1, "so Response 1 is better"), 2.0, 1, 1, 1),
    "inconsistent": (chain(1, "so Response 2 is better"), 1.0, 1, 1, -1),
    "wrong": (chain(2, "so Response 2 is better"), 0.5, 0, 1, 0),
    "formless": ("Response 1", 0.0, 0, 0, 0),
}
"""Response to a comparison whose gold is 1; total, result, format, consistency."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The verifier with a judge that judges by rule."""
    judge = JudgeStub()
    with ExitStack() as running:
        running.callback(judge.close)
        asked = Judge(JudgeOptions(url=judge.url, timeout_seconds=20))
        service = RewardService(Scoring(Algorithm()), asked)
        yield running.enter_context(served(create_app(service, TOKEN)))


@pytest.fixture
def addressed(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The reward functions' environment."""
    monkeypatch.setenv("R1_VERIFIER_URL", url)
    monkeypatch.setenv("R1_VERIFIER_TOKEN", TOKEN)
    monkeypatch.setenv("R1_VERIFIER_SECONDS", "20")
    return url


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_processor().tokenizer


def engine(tokenizer: Any, response: str) -> Any:
    """What OpenRLHF asks for a continuation: it writes this response and the end token."""
    ids = tokenizer(response + "<|im_end|>", add_special_tokens=False)["input_ids"]

    async def generate(*_: Any, **__: Any) -> Any:
        output = SimpleNamespace(token_ids=ids, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])

    return SimpleNamespace(generate=generate)


@pytest.mark.parametrize("name", ANSWERS)
def test_openrlhf_rewards_its_rollouts_by_the_remote_url(url: str, tokenizer: Any, name) -> None:
    response, total, result, fmt, consistency = ANSWERS[name]
    with released(OPENRLHF):
        agent = importlib.import_module("openrlhf.utils.agent")
        remote = url.replace("http://", f"http://r1:{TOKEN}@") + "/get_reward"
        executor = agent.SingleTurnAgentExecutor(remote)
        output = asyncio.run(
            executor.execute(
                PROMPT,
                "<answer>1</answer>",
                SimpleNamespace(max_tokens=512, logprobs=None),
                4096,
                tokenizer,
                engine(tokenizer, response),
            )
        )
    assert output["reward"] == [total]
    assert output["scores"] == [total]
    assert output["extra_logs"] == {
        "result": [result],
        "format": [fmt],
        "consistency": [consistency],
    }


class Data:
    """As much of verl's batch as its reward manager reads: one response, padded."""

    def __init__(self, tokenizer: Any, response: str) -> None:
        ids = tokenizer(response + "<|im_end|>", add_special_tokens=False)["input_ids"]
        padding = [tokenizer.pad_token_id] * 3
        self.batch = {
            "responses": torch.tensor(ids + padding),
            "attention_mask": torch.tensor([1] * (2 + len(ids)) + [0] * 3),
        }
        self.non_tensor_batch = {
            "data_source": "preferences",
            "reward_model": {"ground_truth": "1"},
            "extra_info": {"index": 0},
        }

    def __getitem__(self, _: Any) -> "Data":
        return self


class Config(dict):
    """omegaconf's, as far as verl looks into it."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("name", ANSWERS)
def test_verl_rewards_its_rollouts_by_the_custom_reward_function(
    addressed: str, tokenizer: Any, name
) -> None:
    response, total, result, fmt, consistency = ANSWERS[name]
    function = Config(path=reward_function.__file__, name="compute_score")
    manager = Config(source="register", name="naive")
    config = Config(reward=Config(custom_reward_function=function, reward_manager=manager))
    with released(VERL):
        reward = importlib.import_module("verl.trainer.ppo.reward")

        async def rewarded() -> dict[str, Any]:
            return await reward.load_reward_manager(config, tokenizer).run_single(
                Data(tokenizer, response)
            )

        output = asyncio.run(rewarded())
    assert output == {
        "reward_score": total,
        "reward_extra_info": {
            "score": total,
            "acc": result,
            "format": fmt,
            "consistency": consistency,
        },
    }


def grpo_rewards(module: Any, function: Callable[..., list[float]], completions: Any) -> Any:
    """TRL's own call of a reward function, for a batch of the data set."""
    # One process: there is nothing to gather from others.
    module.gather = lambda tensor: tensor
    trainer = object.__new__(module.GRPOTrainer)
    trainer.accelerator = SimpleNamespace(device=torch.device("cpu"), is_main_process=True)
    trainer.args = SimpleNamespace(report_to=[])
    trainer.state = SimpleNamespace(global_step=0)
    trainer.environments = None
    trainer.reward_funcs, trainer.reward_func_names = [function], ["verifier"]
    trainer.reward_processing_classes = [None]
    inputs = [{"prompt": PROMPT, "gold": gold} for gold in (1, "1", "<answer>1</answer>", 1)]
    prompts = [PROMPT] * len(completions)
    return trainer._calculate_rewards(inputs, prompts, completions, [[0]] * len(completions))


@pytest.mark.parametrize("conversational", [False, True])
def test_trl_rewards_its_completions_by_the_reward_function(
    addressed: str, conversational: bool
) -> None:
    texts = [response for response, *_ in ANSWERS.values()]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    with released(TRL):
        module = importlib.import_module("trl.trainer.grpo_trainer")
        rewards = grpo_rewards(
            module, reward_function.reward_func, completions if conversational else texts
        )
    assert rewards.tolist() == [[total] for _, total, *_ in ANSWERS.values()]


def test_no_framework_gets_a_reward_from_a_verifier_that_refuses_it(
    addressed: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R1_VERIFIER_TOKEN", "another")
    with pytest.raises(reward_function.NoReward, match="HTTP 401"):
        reward_function.compute_score("preferences", ANSWERS["consistent"][0], "1")
    with pytest.raises(reward_function.NoReward, match="HTTP 401"):
        reward_function.reward_func(completions=[ANSWERS["consistent"][0]], gold=[1])
    with released(OPENRLHF):
        agent: Any = importlib.import_module("openrlhf.utils.agent")
        agent.asyncio = SimpleNamespace(  # it pauses for a second before each of five tries
            gather=asyncio.gather, create_task=asyncio.create_task, sleep=lambda _: asyncio.sleep(0)
        )
        output = asyncio.run(
            agent.SingleTurnAgentExecutor(addressed + "/get_reward").execute(
                PROMPT,
                "1",
                SimpleNamespace(max_tokens=512, logprobs=None),
                4096,
                tokenizer,
                engine(tokenizer, ANSWERS["consistent"][0]),
            )
        )
    assert output["reward"] is None
