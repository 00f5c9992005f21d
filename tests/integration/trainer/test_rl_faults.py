# SPDX-License-Identifier: Apache-2.0
"""RL while its rollout servers are killed, frozen, replaced by strangers or of another model.

Rewards and weights must be those of a run without a fault, bit by bit: so every prompt was
answered once for the trainer, with the weights of its step.
"""

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_trainer import services
from r1reward_trainer.context import StageContext
from r1reward_trainer.outcome import ConfigurationError, Interrupted, Outcome
from r1reward_trainer.rollout import FleetOptions, RolloutFleet
from r1reward_trainer.stages import rl
from r1reward_trainer.storage.outputs import find
from r1reward_trainer.storage.s3 import Store
from r1reward_trainer.verifier.app import create_app
from r1reward_trainer.verifier.serve import build_service
from tests.cluster.ports import free
from tests.faulty_way import Fault, Request, faulty_way
from tests.integration.trainer.place import TOKEN, Place, noise
from tests.integration.trainer.stand_in import Pod
from tests.unit.rollout.asking import eventually, in_background
from tests.unit.verifier.conftest import served

SECTION = {
    "sampling": {"promptsPerStep": 8, "samplesPerPrompt": 2, "maxNewTokens": 64},
    "miniBatchSize": 8,
    "microBatchSize": 8,
    "maxSteps": 4,
    "learningRate": 1e-3,
    "algorithm": {"baseline": "Group"},
    "checkpoint": {"everySteps": 3, "keep": 1},
}
GENERATE = "/inference/v1/generate"
ANSWERS = (
    "<think>a</think><answer>1</answer>",
    "<think>bb</think><answer>2</answer>",
    "no verdict",
    "<answer>1</answer>",
)

Hook = Callable[[StageContext, int], None]


@pytest.fixture(scope="module")
def place(
    s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> Place:
    """Rows without images: a stand-in expands none."""
    rows = [dataclasses.replace(row, images=()) for row in noise()]
    return Place(s3, tmp_path_factory.mktemp("text"), model_folder, rows)


@pytest.fixture(scope="module")
def answers(model_folder: Path) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    return [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in ANSWERS]


@pytest.fixture(scope="module")
def verifier(place: Place) -> Iterator[str]:
    config = place.config(Stage.RL, SECTION)
    with served(create_app(build_service(config, TOKEN, {}), TOKEN)) as url:
        yield url


@dataclasses.dataclass
class Site:
    """One run of RL with two pods behind its Service."""

    place: Place
    verifier: str
    uid: str
    pods: list[Pod]

    def run(
        self,
        hook: Hook | None = None,
        attempt: int = 1,
        section: Mapping[str, Any] = SECTION,
        endpoint: str | None = None,
    ) -> Outcome:
        addresses = {
            "rolloutHost": "rollout",
            "rolloutPort": self.pods[0].port,
            "verifierUrl": self.verifier,
        }
        config = self.place.config(
            Stage.RL, section, uid=self.uid, services=addresses, attempt=attempt
        )
        context = self.place.context(config, hook)
        if endpoint is not None:
            environ = {**self.place.environ, "AWS_ENDPOINT_URL": endpoint}
            context = dataclasses.replace(context, store=Store(config.root, environ))
        return rl.run(config, context)

    def result(self) -> tuple[list[dict[str, float]], str]:
        """Metrics of each step but for times, and the digest of the weights."""
        config = self.place.config(Stage.RL, SECTION, uid=self.uid)
        manifest = find(self.place.store, Stage.RL, config.key or "")
        assert manifest is not None
        text = self.place.file(config, manifest.outputs["metrics"], "metrics.jsonl")
        metrics = [json.loads(line)["metrics"] for line in text.splitlines()]
        timeless = [
            {k: v for k, v in step.items() if "second" not in k and "rollout_logprob" not in k}
            for step in metrics
        ]
        return timeless, manifest.outputs["weights"].digest

    def sampled(self) -> set[tuple[int, str]]:
        """Seed and weights of all that was sampled, but for base weights, which none wanted."""
        lines = [line for pod in self.pods for line in pod.lines() if "seed" in line]
        return {(x["seed"], x["version"]) for x in lines if x["version"] != "default"}


@pytest.fixture(scope="module")
def new_site(
    place: Place,
    answers: Sequence[Sequence[int]],
    verifier: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Site]]:
    """Starts two servers for a run, and makes the fleet look at them often."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        def start(uid: str, **attributes: Any) -> Site:
            (port,) = free(1)
            folder = tmp_path_factory.mktemp(uid)
            pods = [
                Pod(folder, f"127.0.0.{n}", port, answers, TOKEN, uid, f"{uid}-{n}", **attributes)
                for n in (2, 3)
            ]
            for pod in pods:
                stack.enter_context(pod.stack)
                pod.start()
            listed = frozenset(pod.address for pod in pods)
            options = partial(
                FleetOptions, resolve_interval=0.1, probe_timeout=1.0, no_server_timeout=60.0
            )
            patch.setattr(services, "FleetOptions", options)
            fleet = partial(RolloutFleet, resolve=lambda *_: listed)
            patch.setattr(services, "RolloutFleet", fleet)
            return Site(place, verifier, uid, pods)

        yield start


NewSite = Callable[..., Site]


@pytest.fixture(scope="module")
def straight(new_site: NewSite) -> Site:
    """A run without a fault."""
    site = new_site("straight")
    site.run()
    return site


def same_as(straight: Site, site: Site) -> None:
    metrics, weights = site.result()
    expected, expected_weights = straight.result()
    assert metrics == expected
    assert weights == expected_weights
    assert straight.sampled() <= site.sampled()


def count(pod: Pod, path: str) -> int:
    return sum(line.get("path") == path for line in pod.lines())


def lost(pod: Pod) -> int:
    """Prompts that it was asked and never answered."""
    return count(pod, GENERATE) - sum("seed" in line for line in pod.lines())


def within_prompts(pod: Pod, act: Callable[[], None]) -> Future[None]:
    """Acts, in a thread, as soon as the pod has another prompt."""
    before = count(pod, GENERATE)

    def run() -> None:
        eventually(lambda: count(pod, GENERATE) > before, 30.0)
        act()

    return in_background(run)


def test_a_run_asks_for_every_prompt_exactly_once(straight: Site):
    metrics, _ = straight.result()
    assert len(metrics) == 4
    assert len({step["reward/mean"] for step in metrics}) > 1  # the answers do depend
    sampled = [line for pod in straight.pods for line in pod.lines() if "seed" in line]
    assert len(sampled) == len(straight.sampled()) == 4 * 8 * 2
    versions = {line["version"].rpartition("-")[0] for line in sampled}
    assert versions == {"1-0", "1-1", "1-2", "1-3"}


def test_servers_killed_within_their_prompts_in_turns_change_nothing(
    straight: Site, new_site: NewSite
):
    site = new_site("killed")
    kills: list[Future[None]] = []

    def kill(pod: Pod) -> None:
        pod.kill()
        pod.start()  # with the base weights

    def hook(context: StageContext, step: int) -> None:
        if step < 4:
            victim = site.pods[step % 2]
            kills.append(within_prompts(victim, partial(kill, victim)))

    site.run(hook)
    for done in kills:
        done.result(30)
    assert all(lost(pod) > 0 for pod in site.pods)
    same_as(straight, site)


def test_a_frozen_server_loses_its_prompts_to_the_other_and_works_again_when_thawed(
    straight: Site, new_site: NewSite
):
    site = new_site("frozen")
    frozen = site.pods[0]
    freezing: list[Future[None]] = []

    def hook(context: StageContext, step: int) -> None:
        if step == 1:
            freezing.append(within_prompts(frozen, frozen.freeze))
        if step == 2:
            freezing[0].result(30)
            assert lost(frozen) > 0
            before = count(frozen, "/weight_info")
            frozen.thaw()
            eventually(lambda: count(frozen, "/weight_info") > before, 30.0)

    site.run(hook)
    same_as(straight, site)
    assert {x["version"][:3] for x in frozen.lines() if "seed" in x} & {"1-2", "1-3"}


def test_a_stranger_at_a_servers_address_gets_neither_token_nor_prompt(
    straight: Site, new_site: NewSite
):
    site = new_site("stranger")
    leaving = site.pods[0]
    stranger = dataclasses.replace(leaving, token="another-jobs-token", pod_uid="another-pod")

    def hook(context: StageContext, step: int) -> None:
        if step == 1:
            leaving.kill()
            stranger.start()

    with stranger.stack:
        site.run(hook)
    assert stranger.lines() == []
    same_as(straight, site)


def test_a_server_that_the_weights_do_not_fit_leaves_the_work_to_the_other(
    straight: Site, new_site: NewSite
):
    site = new_site("misfit")
    odd = site.pods[0]
    odd.kill()
    odd.serves_another_model = True
    odd.start()
    site.run()
    same_as(straight, site)
    assert {line["version"][:3] for line in odd.lines() if "seed" in line} <= {"1-0"}


def test_weights_that_fit_no_server_end_the_run_with_that_reason(new_site: NewSite):
    site = new_site("no-fit", serves_another_model=True)
    with pytest.raises(ConfigurationError) as caught:
        site.run()
    assert caught.value.reason == Reason.INVALID_MODEL
    for address in ("127.0.0.2", "127.0.0.3"):
        assert f"{address} refuses 1-1-" in caught.value.message
    assert "lm_head.weight is F32[319, 64] instead of F32[320, 64]" in caught.value.message


def test_sigterm_saves_in_time_though_every_server_is_gone(new_site: NewSite):
    site = new_site("sigterm")

    def hook(context: StageContext, step: int) -> None:
        if step == 1:
            for pod in site.pods:
                pod.kill()
            threading.Timer(1.0, context.stop.set).start()

    begin = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        site.run(hook)
    assert caught.value.step == 1
    assert time.monotonic() - begin < 30  # the default grace period; a server is missed for 60

    for pod in site.pods:
        pod.start()
    steps: list[int] = []
    site.run(lambda _, step: steps.append(step), attempt=2)
    assert steps == [2, 3, 4]
    metrics, _ = site.result()
    assert len(metrics) == 4


def test_sigterm_ends_the_upload_of_weights_for_the_checkpoint_to_be_saved_in_time(
    new_site: NewSite,
):
    site = new_site("sigterm-upload")
    told: list[float] = []
    stops: list[threading.Event] = []

    def weights_are_slow(request: Request) -> Fault | None:
        if request.method != "PUT" or "/rollout-weights/1-1/" not in request.key:
            return None
        if not told:  # SIGTERM comes while they are on their way
            told.append(time.monotonic())
            stops[0].set()
        return Fault.AWAY

    with faulty_way(site.place.environ["AWS_ENDPOINT_URL"]) as way:
        way.rule = weights_are_slow
        with pytest.raises(Interrupted) as caught:
            site.run(lambda context, step: stops.append(context.stop), endpoint=way.url)
        asked = [r for r in way.requests if "/rollout-weights/1-1/" in r.key]
    assert caught.value.step == 1
    assert time.monotonic() - told[0] < 20  # of the default grace period of 30 s
    assert len(asked) == 1, "it went on uploading"
    steps: list[int] = []
    site.run(lambda _, step: steps.append(step), attempt=2)
    assert steps == [2, 3, 4]
