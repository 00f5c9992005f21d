# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.bench import gpu
from tests.integration.rollout.tiny_model import build_model

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"), seed=0)


def test_both_losses_of_the_bench_are_the_same_number(folder: Path):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    batch = gpu.make_batch(model.config, sequences=1)
    with torch.no_grad():
        ours, naive = gpu.selective_loss(model, batch), gpu.naive_loss(model, batch)
    torch.testing.assert_close(ours, naive)


def test_the_bench_measures_a_small_model_on_the_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "IMAGE_PATCHES", (4, 4))
    monkeypatch.setattr(gpu, "PROMPT_TEXT_TOKENS", 8)
    monkeypatch.setattr(gpu, "RESPONSE_TOKENS", 4)
    result = gpu.run(
        AutoConfig.from_pretrained(folder),
        torch.device("cpu"),
        sequences=[2],
        loss_tokens=[20],
        loss_rounds=2,
        step_rounds=2,
        matmul_side=64,
    )
    (loss,), (step,) = result["loss"], result["step"]
    assert (loss["tokens"], loss["response_tokens"]) == (20, 4)
    assert (step["sequences"], step["tokens"], step["response_tokens"]) == (2, 36, 8)
    for measured in (loss, step):
        ratio = measured["naive_over_ours_seconds"]
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]


def test_useful_work_counts_the_head_on_response_tokens_alone(folder: Path):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    batch = gpu.make_batch(model.config, sequences=1)
    shorter = type(batch)(**{**vars(batch), "mask": torch.zeros_like(batch.mask)})
    head = 320 * 64
    difference = gpu.useful_flops(model, batch) - gpu.useful_flops(model, shorter)
    assert difference == 6.0 * head * gpu.RESPONSE_TOKENS


def test_a_way_that_finds_no_memory_is_named_and_the_other_measured():
    def naive() -> None:
        raise torch.OutOfMemoryError

    result = gpu.compare(lambda: None, naive, 3, gpu.Meter(torch.device("cpu")))
    assert result["naive"] is None
    assert result["ours"]["seconds"]["median"] >= 0
    assert "naive_over_ours_seconds" not in result


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu", "--out", str(tmp_path / "x.json")])
    gpu.main()
    assert capsys.readouterr().out == "no GPU: nothing measured\n"
    assert not (tmp_path / "x.json").exists()
