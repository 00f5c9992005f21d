# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_trainer import optim, training, training_state
from r1reward_trainer.context import StageContext
from r1reward_trainer.outcome import (
    ConfigurationError,
    InfrastructureError,
    Interrupted,
    Outcome,
    ProgramError,
)
from r1reward_trainer.stages import sft
from r1reward_trainer.storage.checkpoint import Checkpoints
from r1reward_trainer.storage.outputs import find
from tests.integration.trainer.place import Place, noise

SECTION = {
    "epochs": 2,
    "batchSize": 8,
    "microBatchSize": 3,
    "learningRate": 1e-3,
    "checkpoint": {"everySteps": 2, "keep": 2},
}


class Killed(BaseException):
    """Stands for SIGKILL: no handler runs."""


class Poison:
    """Makes one number NaN: in the gradients before an update, or in the weights after it.

    Args:
        attribute: "grad" or "data" of a parameter.
        update: which, from 1.
    """

    def __init__(self, attribute: str, update: int) -> None:
        self.attribute = attribute
        self._left = update
        self._update = optim.update

    def __call__(
        self, optimizer: torch.optim.AdamW, module: nn.Module, rate: float, max_grad_norm: float
    ) -> float:
        self._left -= 1
        if self._left == 0 and self.attribute == "grad":
            self._spoil(module)
        norm = self._update(optimizer, module, rate, max_grad_norm)
        if self._left == 0 and self.attribute == "data":
            self._spoil(module)
        return norm

    def _spoil(self, module: nn.Module) -> None:
        value = getattr(next(module.parameters()), self.attribute)
        training_state.local_rows(value).rows.view(-1)[0] = torch.nan


@pytest.fixture(scope="module")
def straight(place: Place) -> Outcome:
    """A run without interruption."""
    config = place.config(Stage.SFT, SECTION, uid="straight")
    return sft.run(config, place.context(config))


def metrics(place: Place, uid: str, outcome: Outcome) -> list[dict[str, Any]]:
    config = place.config(Stage.SFT, SECTION, uid=uid)
    text = place.file(config, outcome.manifest.outputs["metrics"], "metrics.jsonl")
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_leaves_weights_metrics_and_figures(place: Place, straight: Outcome):
    assert (straight.cache_hit, straight.step) == (False, 6)
    lines = metrics(place, "straight", straight)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    losses = [line["metrics"]["loss"] for line in lines]
    assert losses == sorted(losses, reverse=True)
    assert straight.manifest.summary == {"sftSteps": "6", "sftLoss": f"{losses[-1]:.4f}"}
    assert set(lines[0]["metrics"]) == {
        "loss",
        "grad_norm",
        "lr",
        "tokens_per_second",
    }


def test_a_finished_stage_is_reported_again_without_training(place: Place, straight: Outcome):
    config = place.config(Stage.SFT, SECTION, uid="straight", attempt=2)
    again = sft.run(config, place.context(config, after_step=_no_step))
    assert again.manifest == straight.manifest
    assert not again.cache_hit, "it is the job's own"


def test_sigterm_saves_and_the_next_attempt_ends_with_the_same_weights(
    place: Place, straight: Outcome
):
    def stop_after_3(context: StageContext, step: int) -> None:
        if step == 3:
            context.stop.set()

    first = place.config(Stage.SFT, SECTION, uid="sigterm")
    with pytest.raises(Interrupted) as caught:
        sft.run(first, place.context(first, stop_after_3))
    assert caught.value.step == 3

    steps: list[int] = []
    second = place.config(Stage.SFT, SECTION, uid="sigterm", attempt=2)
    outcome = sft.run(second, place.context(second, lambda _, step: steps.append(step)))
    assert steps == [4, 5, 6]
    _same_result(place, straight, "sigterm", outcome)


def test_a_kill_loses_only_the_steps_since_the_last_checkpoint(place: Place, straight: Outcome):
    def die_in_5(context: StageContext, step: int) -> None:
        if step == 5:
            raise Killed

    first = place.config(Stage.SFT, SECTION, uid="kill")
    with pytest.raises(Killed):
        sft.run(first, place.context(first, die_in_5))

    steps: list[int] = []
    second = place.config(Stage.SFT, SECTION, uid="kill", attempt=2)
    outcome = sft.run(second, place.context(second, lambda _, step: steps.append(step)))
    assert steps == [5, 6]
    _same_result(place, straight, "kill", outcome)


def test_of_two_trainers_alive_the_earlier_ends_at_its_next_save_and_harms_nothing(
    place: Place, straight: Outcome
):
    """As when the node of the first attempt was only thought lost."""

    def overtake(context: StageContext, step: int) -> None:
        if step == 3:  # the second attempt is told what to go on from
            assert Checkpoints(context.store, first.run_prefix, 2, 2, "second", {}).claim()

    first = place.config(Stage.SFT, SECTION, uid="overtaken")
    with pytest.raises(InfrastructureError) as caught:
        sft.run(first, place.context(first, overtake))
    assert caught.value.reason == Reason.STALE_WRITER
    assert "this one of attempt 1 ends" in caught.value.message

    steps: list[int] = []
    second = place.config(Stage.SFT, SECTION, uid="overtaken", attempt=2)
    outcome = sft.run(second, place.context(second, lambda _, step: steps.append(step)))
    assert steps == [3, 4, 5, 6]
    _same_result(place, straight, "overtaken", outcome)


def test_a_trainer_that_was_overtaken_after_its_last_save_writes_no_result(place: Place):
    def overtake(context: StageContext, step: int) -> None:
        if step == 5:
            Checkpoints(context.store, config.run_prefix, 2, 2, "second", {}).claim()

    config = place.config(Stage.SFT, {**SECTION, "maxSteps": 5}, uid="overtaken-late")
    with pytest.raises(InfrastructureError) as caught:
        sft.run(config, place.context(config, overtake))
    assert caught.value.reason == Reason.STALE_WRITER
    assert find(place.store, Stage.SFT, config.key or "") is None
    assert not list(place.store.list(f"{config.run_prefix}/attempt-"))


def test_what_a_trainer_uploaded_that_was_killed_before_it_published_goes_with_the_next_result(
    place: Place, straight: Outcome, monkeypatch: pytest.MonkeyPatch
):
    def die(*_: object) -> None:
        raise Killed

    first = place.config(Stage.SFT, SECTION, uid="unpublished")
    with monkeypatch.context() as patch:
        patch.setattr(training, "publish", die)
        with pytest.raises(Killed):
            sft.run(first, place.context(first))

    second = place.config(Stage.SFT, SECTION, uid="unpublished", attempt=2)
    outcome = sft.run(second, place.context(second, after_step=_no_step))  # all steps are saved
    _same_result(place, straight, "unpublished", outcome)
    assert outcome.manifest.summary == straight.manifest.summary
    left = {o.key.split("/attempt-")[1] for o in place.store.list(f"{first.run_prefix}/attempt-")}
    assert {path.split("/")[0] for path in left} == {"2"}


def test_bfloat16_trains_and_resumes_to_the_same_weights(place: Place):
    serving = {"dtype": "bfloat16", "gradientCheckpointing": True}
    whole = place.config(Stage.SFT, SECTION, uid="bf16", serving=serving)
    expected = sft.run(whole, place.context(whole))

    def stop_after_3(context: StageContext, step: int) -> None:
        if step == 3:
            context.stop.set()

    first = place.config(Stage.SFT, SECTION, uid="bf16-parts", serving=serving)
    with pytest.raises(Interrupted):
        sft.run(first, place.context(first, stop_after_3))
    second = place.config(Stage.SFT, SECTION, uid="bf16-parts", serving=serving, attempt=2)
    outcome = sft.run(second, place.context(second))
    assert outcome.manifest.outputs["weights"].digest == expected.manifest.outputs["weights"].digest


def test_a_loss_that_is_not_finite_ends_the_run_with_a_diagnosis(
    s3: dict[str, str], tmp_path: Path, model_folder: Path
):
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    place = Place(s3, tmp_path / "place", broken)

    config = place.config(Stage.SFT, SECTION)
    with pytest.raises(ProgramError) as caught:
        sft.run(config, place.context(config))
    assert caught.value.reason == Reason.NON_FINITE_LOSS
    for part in ("step 1", "learning rate", "row-", "maxGradNorm"):
        assert part in caught.value.message
    assert find(place.store, Stage.SFT, "key-uid") is None
    assert not list(place.store.list(f"{config.run_prefix}/checkpoints/attempt-1"))


@pytest.mark.parametrize(
    ("poison", "words"),
    [
        (Poison("grad", update=5), "the gradient norm of step 5 is not finite"),
        (Poison("data", update=4), "the weights after step 4 hold values that are not finite"),
    ],
)
def test_what_becomes_not_finite_reaches_no_checkpoint_and_the_last_good_one_is_resumed(
    place: Place, straight: Outcome, monkeypatch: pytest.MonkeyPatch, poison: Poison, words: str
):
    uid = f"poisoned-{poison.attribute}"
    first = place.config(Stage.SFT, SECTION, uid=uid)
    with monkeypatch.context() as patch:
        patch.setattr(sft.optim, "update", poison)
        with pytest.raises(ProgramError) as caught:
            sft.run(first, place.context(first))
    assert caught.value.reason == Reason.NON_FINITE_LOSS
    assert words in caught.value.message
    assert "The last checkpoint is from before and is kept" in caught.value.message

    steps: list[int] = []
    second = place.config(Stage.SFT, SECTION, uid=uid, attempt=2)
    outcome = sft.run(second, place.context(second, lambda _, step: steps.append(step)))
    assert steps[0] == (5 if poison.attribute == "grad" else 3)
    _same_result(place, straight, uid, outcome)


def test_a_last_update_that_ruins_the_weights_is_no_result(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    config = place.config(Stage.SFT, {**SECTION, "maxSteps": 3}, uid="ruined")
    monkeypatch.setattr(sft.optim, "update", Poison("data", update=3))
    with pytest.raises(ProgramError, match="the weights after step 3"):
        sft.run(config, place.context(config))
    assert find(place.store, Stage.SFT, config.key or "") is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("rows", "was made with another data ("),
        ("tokenizer", "was made with another starting model and tokenizer and processor ("),
    ],
)
def test_a_resume_with_other_rows_or_another_tokenizer_is_refused_by_name(
    s3: dict[str, str], place: Place, tmp_path: Path, model_folder: Path, change: str, named: str
):
    def stop_after_1(context: StageContext, step: int) -> None:
        context.stop.set()

    first = place.config(Stage.SFT, SECTION, uid=f"other-{change}")
    with pytest.raises(Interrupted):
        sft.run(first, place.context(first, stop_after_1))

    model, rows = tmp_path / "model", noise()
    shutil.copytree(model_folder, model)
    if change == "tokenizer":
        template = model / "chat_template.jinja"
        template.write_text(template.read_text().replace("assistant", "judge"))
    else:
        rows[3] = dataclasses.replace(rows[3], response="<think></think><answer>1</answer>")
    other = Place(s3, tmp_path, model, rows, place.root)
    second = other.config(Stage.SFT, SECTION, uid=f"other-{change}", attempt=2)
    with pytest.raises(ConfigurationError) as caught:
        sft.run(second, other.context(second, after_step=_no_step))
    assert caught.value.reason == Reason.INVALID_SPEC
    assert named in caught.value.message
    assert "create the job under another name" in caught.value.message


def _no_step(context: StageContext, step: int) -> None:
    raise AssertionError("a finished stage trained again")


def _same_result(place: Place, straight: Outcome, uid: str, outcome: Outcome) -> None:
    """Bit for bit the same weights, and each step logged once."""
    expected = straight.manifest.outputs["weights"].digest
    assert outcome.manifest.outputs["weights"].digest == expected
    without_time = [
        [(m["step"], m["metrics"]["loss"]) for m in metrics(place, of, run)]
        for of, run in (("straight", straight), (uid, outcome))
    ]
    assert without_time[0] == without_time[1]
