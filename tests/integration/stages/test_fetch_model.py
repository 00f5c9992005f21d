# SPDX-License-Identifier: Apache-2.0
"""fetch-model, the init container of servers, against a real S3 server: what the server finds,
and what the operator is told when there is nothing to find."""

import os
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from r1reward_api.constants import ExitCode, Role, Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import RunConfig
from r1reward_api.wire.termination import FailureClass, Termination
from r1reward_rollout.tail import Tail, pod_name
from r1reward_rollout.upload import presigned_uploads
from r1reward_trainer.cli import run_service
from r1reward_trainer.environment import Environment
from r1reward_trainer.stages.fetch_model import fetch_model
from r1reward_trainer.storage import s3
from r1reward_trainer.storage.outputs import publish, upload_output
from r1reward_trainer.storage.patience import Patience
from tests.clock import FakeClock
from tests.cluster.layout import REPOSITORY
from tests.integration.stages.harness import Workplace
from tests.integration.stages.pod import environment_in

DEADLINE = 60.0


@dataclass
class Prepared:
    """prepare has finished, as far as servers need it.

    Attributes:
        workplace: the storage.
        model: URI of the base model.
        known: what finished stages have left.
    """

    workplace: Workplace
    model: str
    known: dict[Stage, StageManifest] = field(default_factory=dict)

    def config(self, stage: Stage) -> RunConfig:
        spec: dict[str, Any] = {
            "runtimeRef": {"name": "cpu"},
            "model": {"uri": self.model},
            "data": {"preferences": [{"uri": f"{self.workplace.root}/rows/*.parquet"}]},
            "evaluate": {},
        }
        if stage is Stage.RL:
            spec["rl"] = {"rows": "All"}
        return self.workplace.config(spec, stage, self.known)

    def environment(self, stage: Stage, uri: str | None = None) -> Environment:
        return environment_in(self.workplace.folder / "pod", self.config(stage), uri)

    def place(self, file: str) -> str:
        """Key of a file of the model."""
        manifest = self.known[Stage.PREPARE]
        return f"stages/prepare/{manifest.key}/{manifest.outputs['model'].path}/{file}"


@pytest.fixture
def prepared(workplace: Workplace, model_uri: str, model_folder: Path, tmp_path: Path) -> Prepared:
    prepared = Prepared(workplace, model_uri)
    config = prepared.config(Stage.PREPARE).model_copy(update={"key": "0" * 64})
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/part-00000.parquet").write_text("not read here")
    outputs = {
        name: upload_output(workplace.store, config, name, folder)
        for name, folder in {
            "model": model_folder, "train": tmp_path / "rows", "heldout": tmp_path / "rows",
        }.items()
    }  # fmt: skip
    prepared.known[Stage.PREPARE], _ = publish(workplace.store, config, outputs, {})
    return prepared


@pytest.mark.parametrize("stage", [Stage.RL, Stage.EVALUATE])
def test_it_leaves_the_starting_model_readable_by_every_user(
    prepared: Prepared, model_folder: Path, stage: Stage
):
    where = prepared.environment(stage)
    (where.models / "base").mkdir(parents=True)
    (where.models / "base/of-an-earlier-start").write_text("x")
    fetch_model(where, prepared.workplace.open_store)
    found = where.models / "base"
    assert {p.name: p.read_bytes() for p in found.iterdir()} == {
        p.name: p.read_bytes() for p in model_folder.iterdir()
    }
    assert {stat.S_IMODE(p.stat().st_mode) for p in found.iterdir()} == {0o644}
    assert {p.name for p in where.models.iterdir()} == {"base", "log-url"}


@pytest.mark.parametrize("role", [Role.ROLLOUT, Role.JUDGE])
def test_it_lets_the_server_store_its_own_log_and_nothing_else(
    prepared: Prepared, role: Role, tmp_path: Path
):
    where = prepared.environment(Stage.RL, prepared.model if role is Role.JUDGE else None)
    fetch_model(where, prepared.workplace.open_store)
    url = (where.models / "log-url").read_text()
    with presigned_uploads(
        Tail(tmp_path / "tail"), {"R1_LOG_URL_FILE": str(where.models / "log-url")}
    ):
        Tail(tmp_path / "tail").append(b"no KV cache\n")
    key = f"jobs/job/logs/rl/attempt-1/{role}-{pod_name()}.log"
    assert prepared.workplace.store.get(key) == b"no KV cache\n"
    for other in (url.replace(f"{role}-", "verifier-"), url.replace("attempt-1", "attempt-2")):
        assert httpx.put(other, content=b"forged").status_code == 403
    assert httpx.get(url).status_code == 403


def test_it_takes_the_judges_model_where_one_is_named(prepared: Prepared, model_folder: Path):
    where = prepared.environment(Stage.RL, prepared.model)
    fetch_model(where, prepared.workplace.open_store)
    assert {p.name for p in (where.models / "base").iterdir()} == {
        p.name for p in model_folder.iterdir()
    }


def told(where: Environment) -> Termination:
    """What the operator reads."""
    message = Termination.decode(where.termination_log.read_text())
    assert message is not None
    assert (message.stage, message.attempt, message.outcome) == (Stage.RL, 1, "Failed")
    assert not (where.models / "base").exists()
    return message


def refused(where: Environment, workplace: Workplace) -> Termination:
    """What the operator reads of what only the user can change."""
    code = run_service(where, lambda: fetch_model(where, workplace.open_store))
    assert code == ExitCode.CONFIGURATION
    message = told(where)
    assert message.failure_class is FailureClass.CONFIGURATION
    return message


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_an_object_that_is_not_what_its_manifest_says_is_told_by_its_digest(
    prepared: Prepared, damage: str
):
    store, key = prepared.workplace.store, prepared.place("model.safetensors")
    content = store.get(key)
    if damage == "gone":
        store.delete(key)
    else:
        store.put(key, content[:-8] + bytes(8 * [content[-8] ^ 1]))
    message = refused(prepared.environment(Stage.RL), prepared.workplace)
    assert message.reason == Reason.ARTIFACT_CORRUPT
    assert store.uri(key) in message.message
    files = prepared.known[Stage.PREPARE].outputs["model"].files
    digest = next(f.sha256 for f in files if f.path == "model.safetensors")
    said = "not in storage" if damage == "gone" else f"its manifest says {digest}"
    assert said in message.message


@pytest.mark.parametrize(
    ("damage", "said"), [("cut", "model.safetensors is damaged"), ("gone", "no model files below")]
)
def test_a_judges_model_that_cannot_be_served_is_told_by_its_field(
    prepared: Prepared, damage: str, said: str
):
    store = prepared.workplace.open_store(prepared.model)
    if damage == "cut":
        store.put("model.safetensors", store.get("model.safetensors")[:-1])
    uri = prepared.model if damage == "cut" else f"{prepared.model}/absent"
    message = refused(prepared.environment(Stage.RL, uri), prepared.workplace)
    assert message.reason == Reason.INVALID_MODEL
    assert f"spec.rl.verifier.judge.model {uri}" in message.message
    assert said in message.message


def test_storage_that_is_away_is_told_as_what_passes(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
):
    clock = FakeClock()
    patience = Patience(clock=clock.monotonic, sleep=clock.advance)
    monkeypatch.setattr(s3, "Patience", lambda: patience)
    away = {**prepared.workplace.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    where = prepared.environment(Stage.RL)
    code = run_service(where, lambda: fetch_model(where, lambda uri: s3.Store(uri, away)))
    assert code == ExitCode.INFRASTRUCTURE
    message = told(where)
    assert message.failure_class is FailureClass.INFRASTRUCTURE
    assert message.reason == Reason.STORAGE_UNAVAILABLE


def test_the_container_itself_ends_with_the_message_and_its_exit_code(prepared: Prepared):
    prepared.workplace.store.put(prepared.place("config.json"), b"{}")
    where = prepared.environment(Stage.RL)
    ended = subprocess.run(
        [sys.executable, "-m", "r1reward_trainer", "fetch-model"],
        env={
            **os.environ,
            **prepared.workplace.environ,
            "PYTHONPATH": f"{REPOSITORY}/operator:{REPOSITORY}/trainer_image",
            "OMP_NUM_THREADS": "1",
            "R1_RUN_CONFIG": str(where.run_config),
            "R1_TERMINATION_LOG": str(where.termination_log),
            "R1_SCRATCH": str(where.scratch),
            "R1_MODELS": str(where.models),
        },
        stderr=subprocess.PIPE, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert ended.returncode == ExitCode.CONFIGURATION, ended.stderr
    assert told(where).reason == Reason.ARTIFACT_CORRUPT
