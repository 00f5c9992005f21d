# SPDX-License-Identifier: Apache-2.0
"""RL against a real vLLM server, a real verifier and a real S3 server."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from torch import Tensor

from r1reward_api.constants import ExitCode, Stage
from r1reward_trainer.context import StageContext
from r1reward_trainer.outcome import Interrupted, Outcome
from r1reward_trainer.services import Services
from r1reward_trainer.stages import rl
from r1reward_trainer.storage.outputs import find
from r1reward_trainer.verifier.app import create_app
from r1reward_trainer.verifier.serve import build_service
from tests.integration.rollout.servers import JOB_UID, TOKEN, RolloutServer, rollout_server
from tests.integration.trainer.launch import two_processes
from tests.integration.trainer.place import Place
from tests.unit.verifier.conftest import served

SECTION = {
    "sampling": {"promptsPerStep": 4, "samplesPerPrompt": 2, "maxNewTokens": 12},
    "miniBatchSize": 4,
    "microBatchSize": 3,
    "maxSteps": 3,
    "learningRate": 1e-3,
    "algorithm": {"baseline": "Group", "klCoefficient": 0.01},
    "checkpoint": {"everySteps": 1, "keep": 1},
}
METRICS = {
    "loss", "grad_norm", "lr", "tokens_per_second",
    "reward/mean", "reward/result", "reward/format", "reward/consistency", "judge/errors",
    "response/length_mean", "response/truncated",
    "policy/pre_clip_fraction", "policy/clip_fraction", "policy/approx_kl",
    "policy/advantage_filtered_fraction", "policy/rollout_logprob_diff",
    "seconds/rollout", "seconds/logprobs", "seconds/rewards", "seconds/train", "seconds/weights",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[RolloutServer]:
    with rollout_server(tmp_path_factory.mktemp("rollout"), model_folder) as running:
        yield running


@pytest.fixture(scope="module")
def services(place: Place, server: RolloutServer) -> Iterator[Mapping[str, Any]]:
    config = place.config(Stage.RL, SECTION, uid=JOB_UID)
    with served(create_app(build_service(config, TOKEN, {}), TOKEN)) as verifier:
        yield {
            "rolloutHost": "127.0.0.1",
            "rolloutPort": server.port,
            "verifierUrl": verifier,
        }


@pytest.fixture(scope="module")
def interrupted(place: Place, services: Mapping[str, Any]) -> None:
    """The first attempt, told to stop while it samples for its second step."""
    contexts: list[StageContext] = []

    def stop_soon(context: StageContext, step: int) -> None:
        contexts.append(context)

    class Stopping(Services):
        """SIGTERM arrives when the requests of the second step are under way."""

        def publish(self, step: int, tensors: Iterable[tuple[str, Tensor]]) -> bool:
            handed_over = super().publish(step, tensors)
            contexts[0].stop.set()
            return handed_over

    config = place.config(Stage.RL, SECTION, uid=JOB_UID, services=services)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rl, "Services", Stopping)
        with pytest.raises(Interrupted) as caught:
            rl.run(config, place.context(config, stop_soon))
    assert caught.value.step == 1


@pytest.fixture(scope="module")
def outcome(place: Place, services: Mapping[str, Any], interrupted: None) -> Outcome:
    """The second attempt."""
    config = place.config(Stage.RL, SECTION, uid=JOB_UID, services=services, attempt=2)
    return rl.run(config, place.context(config))


@pytest.fixture
def lines(place: Place, outcome: Outcome):
    """Reads a JSON-lines file of the metrics output."""
    config = place.config(Stage.RL, SECTION, uid=JOB_UID)

    def read(name: str) -> list[dict[str, Any]]:
        text = place.file(config, outcome.manifest.outputs["metrics"], name)
        return [json.loads(line) for line in text.splitlines()]

    return read


def test_a_resumed_run_logs_every_step_once(outcome: Outcome, lines):
    assert (outcome.step, outcome.cache_hit) == (3, False)
    metrics = lines("metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert all(set(line["metrics"]) == METRICS for line in metrics)
    mean = metrics[-1]["metrics"]["reward/mean"]
    assert outcome.manifest.summary == {
        "rlSteps": "3",
        "rlReward": f"{mean:.4f}",
        "rlJudgeErrors": "0",
    }


def test_trainer_and_servers_agree_on_the_logprobs_of_prompts_with_images(lines):
    """Also after weight updates, and in the attempt that resumed."""
    differences = [m["metrics"]["policy/rollout_logprob_diff"] for m in lines("metrics.jsonl")]
    assert max(differences) < 1e-4


def test_samples_can_be_read_with_their_rewards(lines):
    samples = lines("samples.jsonl")
    assert [s["step"] for s in samples] == [1] * 4 + [2] * 4 + [3] * 4
    assert set(samples[0]) == {
        "step", "row", "gold", "response", "tokens", "truncated", "reward", "result", "format",
        "consistency", "verdict", "judge", "reasons",
    }  # fmt: skip
    assert all(1 <= s["tokens"] <= 12 for s in samples)
    assert all(set(s["reasons"]) == {"result", "format", "consistency"} for s in samples)


def test_the_servers_hold_the_last_published_weights(server: RolloutServer, outcome: Outcome):
    answer = httpx.get(
        f"{server.url}/weight_info", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
    )
    assert answer.json()["weight_version"].startswith("2-2-")


def test_only_outputs_and_the_last_checkpoint_are_left(place: Place, outcome: Outcome):
    config = place.config(Stage.RL, SECTION, uid=JOB_UID)
    root = f"{config.run_prefix}/"
    left = [o.key.removeprefix(root) for o in place.store.list(root)]
    folders = {"/".join(key.split("/")[:2]) for key in left}
    assert folders == {
        "attempt-2/weights",
        "attempt-2/metrics",
        "checkpoints/latest.json",
        "checkpoints/attempt-2",
    }
    assert find(place.store, Stage.RL, config.key or "") == outcome.manifest


def test_weights_of_an_attempt_that_was_killed_as_it_published_go_with_the_next(
    place: Place, services: Mapping[str, Any], outcome: Outcome
):
    config = place.config(Stage.RL, SECTION, uid=JOB_UID, services=services, attempt=3)
    for attempt, step in ((1, 1), (2, 1), (2, 2)):
        folder = f"{config.run_prefix}/attempt-{attempt}/rollout-weights"
        place.store.put(f"{folder}/{attempt}-{step}/0.safetensors", b"handed over")
    assert rl.run(config, place.context(config)).manifest == outcome.manifest
    left = {o.key.split("/")[-2] for o in place.store.list(f"{config.run_prefix}/attempt-")}
    assert left == {"weights", "metrics"}


def test_two_sharded_processes_hand_over_whole_weights(
    place: Place, services: Mapping[str, Any], outcome: Outcome, tmp_path: Path
):
    section = {**SECTION, "maxSteps": 2}
    config = place.config(Stage.RL, section, uid=JOB_UID, services=services, attempt=3)
    config = config.model_copy(update={"key": "two-processes"})
    with two_processes(place, config, tmp_path / "pair") as group:
        assert group.exit_codes() == [ExitCode.SUCCESS, ExitCode.SUCCESS], group.log(0)
    manifest = find(place.store, Stage.RL, "two-processes")
    assert manifest is not None
    text = place.file(config, manifest.outputs["metrics"], "metrics.jsonl")
    metrics = [json.loads(line)["metrics"] for line in text.splitlines()]
    assert len(metrics) == 2
    assert max(m["policy/rollout_logprob_diff"] for m in metrics) < 1e-4
