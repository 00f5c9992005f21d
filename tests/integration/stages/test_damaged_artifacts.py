# SPDX-License-Identifier: Apache-2.0
"""An object that is not what its manifest says, in each stage that reads it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import RunConfig, Services
from r1reward_rollout.download import DownloadError, fetch, opener
from r1reward_rollout.update_info import parse_update_info
from r1reward_trainer.data.rows import AnnotatedRow, Row, write_rows
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.render import Renderer
from r1reward_trainer.stages import annotate, evaluate, rl, sft
from r1reward_trainer.storage.outputs import find, publish, upload_output
from tests.digits.model import build_model
from tests.digits.rows import TEMPLATE, preference_rows
from tests.integration.s3_client import unfinished_uploads
from tests.integration.stages.digits_server import DigitsServer
from tests.integration.stages.harness import Workplace
from tests.unit.rollout.protocol_server import TOKEN, event_loop

ROWS = preference_rows()[:8]
CHAINS = [
    AnnotatedRow(
        **{name: getattr(row, name) for name in Row.__slots__},
        response=f"<think>seen</think><answer>{row.gold}</answer>",
        attempts=2,
        teacher="teacher",
        temperature=0.0,
    )
    for row in ROWS
]

Damage = Callable[[bytes], bytes | None]
DAMAGES: dict[str, Damage] = {
    "altered": lambda content: content[:-8] + bytes(8 * [content[-8] ^ 1]),
    "cut": lambda content: content[: len(content) // 2],
    "gone": lambda content: None,
}


@dataclass
class Chain:
    """prepare, annotate and sft have finished."""

    workplace: Workplace
    spec: dict[str, Any]
    known: dict[Stage, StageManifest]

    def config(self, stage: Stage, port: int = 1) -> RunConfig:
        services = Services(
            rollout_host="127.0.0.1", rollout_port=port, verifier_url="http://127.0.0.1:1"
        )
        known = {of: manifest for of, manifest in self.known.items() if of != stage}
        config = self.workplace.config(self.spec, stage, known)
        return config.model_copy(update={"services": services})

    def run(self, stage: Stage, port: int = 1) -> None:
        module = {
            Stage.ANNOTATE: annotate, Stage.SFT: sft, Stage.RL: rl, Stage.EVALUATE: evaluate,
        }[stage]  # fmt: skip
        context = replace(self.workplace.context(stage), token=TOKEN)
        module.run(self.config(stage, port), context)

    @contextmanager
    def damaged(
        self, stage: Stage, output: str, file: str, how: Damage
    ) -> Iterator[tuple[str, str]]:
        """A file of an output is damaged for a while; its key, and the digest it should have."""
        manifest = self.known[stage]
        found = manifest.outputs[output]
        key = f"stages/{stage}/{manifest.key}/{found.path}/{file}"
        store = self.workplace.store
        whole = store.get(key)
        content = how(whole)
        if content is None:
            store.delete(key)
        else:
            store.put(key, content)
        yield key, next(entry.sha256 for entry in found.files if entry.path == file)
        store.put(key, whole)


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights than the base model's."""
    return build_model(tmp_path_factory.mktemp("trained"), seed=1)


@pytest.fixture
def chain(workplace: Workplace, model_folder: Path, trained_folder: Path, tmp_path: Path) -> Chain:
    spec = {
        "runtimeRef": {"name": "cpu"},
        "model": {"uri": f"{workplace.root}/base"},
        "data": {
            "preferences": [{"uri": f"{workplace.root}/rows/*.parquet"}],
            "promptTemplate": TEMPLATE,
            "minPixels": 784,
            "maxPixels": 3136,
            "maxPromptTokens": 64,
        },
        "annotate": {"teacher": {"baseUrl": "http://127.0.0.1:1/v1", "model": "teacher"}},
        "sft": {"batchSize": 8},
        "evaluate": {"maxNewTokens": 32, "votes": [1]},
    }
    chain = Chain(workplace, spec, {})
    write_rows(tmp_path / "train", ROWS, Row)
    write_rows(tmp_path / "chains", CHAINS, AnnotatedRow)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/metrics.jsonl").write_text("")
    outputs = {
        Stage.PREPARE: {"model": model_folder, "train": "train", "heldout": "train"},
        Stage.ANNOTATE: {"sft": "chains", "rl": "chains"},
        Stage.SFT: {"weights": trained_folder, "metrics": "metrics"},
    }
    for stage, folders in outputs.items():
        config = chain.config(stage)
        if config.key is None:
            config = config.model_copy(update={"key": "0" * 64})
        made = {
            name: upload_output(workplace.store, config, name, tmp_path / folder)
            for name, folder in folders.items()
        }
        chain.known[stage], _ = publish(workplace.store, config, made, {})
    return chain


def refused(chain: Chain, stage: Stage, of: Stage, output: str, file: str, port: int = 1) -> None:
    """However the file is damaged, the stage names it, its digest and the remedy, and leaves
    nothing."""
    store, config = chain.workplace.store, chain.config(stage, port)
    store.delete(f"{config.stage_prefix}/manifest.json")
    for how, damage in DAMAGES.items():
        with chain.damaged(of, output, file, damage) as (key, digest):
            with pytest.raises(ConfigurationError) as caught:
                chain.run(stage, port)
            assert caught.value.reason == Reason.ARTIFACT_CORRUPT
            assert store.uri(key) in caught.value.message
            said = "not in storage" if how == "gone" else f"its manifest says {digest}"
            assert said in caught.value.message
            assert "delete the stage's manifest.json" in caught.value.message
            assert find(store, stage, config.key or "") is None
    assert unfinished_uploads(chain.workplace.environ, store.uri().split("/", 3)[3]) == []


def test_annotate_refuses_prepares_rows(chain: Chain):
    refused(chain, Stage.ANNOTATE, Stage.PREPARE, "train", "part-00000.parquet")


def test_sft_refuses_annotates_chains(chain: Chain):
    refused(chain, Stage.SFT, Stage.ANNOTATE, "sft", "part-00000.parquet")


def test_rl_refuses_sfts_weights(chain: Chain):
    chain.spec["rl"] = {"sampling": {"maxNewTokens": 32}}
    refused(chain, Stage.RL, Stage.SFT, "weights", "model.safetensors")


class FetchingServer(DigitsServer):
    """Fetches weights as a rollout server does, and refuses what it cannot have."""

    def __init__(self, *given: Any, folder: Path) -> None:
        super().__init__(*given)
        self._folder = folder

    def _prepare(self, method: str, argument: str) -> dict[str, Any]:
        if method == "r1_prepare_weights":
            info = parse_update_info(json.loads(argument))
            try:
                for file in info.files:
                    fetch(opener({}), file, self._folder, time.monotonic() + 30, lambda: False)
            except DownloadError as error:
                self.refuses[info.version] = str(error)
        return super()._prepare(method, argument)


@contextmanager
def server(chain: Chain, model_folder: Path) -> Iterator[FetchingServer]:
    folder = chain.workplace.folder / "weights"
    folder.mkdir()
    renderer = Renderer.from_folder(model_folder, chain.config(Stage.EVALUATE).spec.data)
    with event_loop() as loop:
        running = FetchingServer(loop, renderer, chain.workplace.uid, folder=folder)
        running.start()
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_evaluate_refuses_sfts_weights(chain: Chain, model_folder: Path, file: str):
    """Its servers read the weights; it says itself what is wrong with them."""
    with server(chain, model_folder) as running:
        refused(chain, Stage.EVALUATE, Stage.SFT, "weights", file, running.port)


def test_weights_that_servers_refuse_for_a_reason_of_their_own_are_not_called_corrupt(
    chain: Chain, model_folder: Path
):
    with server(chain, model_folder) as running:
        running.refuses = _Everything()
        with pytest.raises(Exception, match="no room") as caught:
            chain.run(Stage.EVALUATE, running.port)
    assert getattr(caught.value, "reason", None) == Reason.ROLLOUT_UNAVAILABLE


class _Everything(dict[str, str]):
    """Refuses every version."""

    def get(self, key: str, default: Any = None) -> Any:
        return "no room on the GPU"


def test_evaluates_own_result_is_verified_before_it_is_shown(chain: Chain, model_folder: Path):
    with server(chain, model_folder) as running:
        chain.run(Stage.EVALUATE, running.port)
    config = chain.config(Stage.EVALUATE)
    manifest = find(chain.workplace.store, Stage.EVALUATE, config.key or "")
    assert manifest is not None
    chain.known[Stage.EVALUATE] = manifest
    shown = chain.workplace.store.get("jobs/job/report/report.html")
    damaged = chain.damaged(Stage.EVALUATE, "report", "report.html", DAMAGES["cut"])
    with damaged as (key, digest), pytest.raises(ConfigurationError, match=digest) as caught:
        chain.run(Stage.EVALUATE)
    assert key in caught.value.message
    assert chain.workplace.store.get("jobs/job/report/report.html") == shown
