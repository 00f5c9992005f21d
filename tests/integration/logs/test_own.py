# SPDX-License-Identifier: Apache-2.0
"""Logs of containers that have the storage credentials, as they lie in a real S3 server."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1reward_api.constants import ExitCode, Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_api.wire.termination import Termination
from r1reward_rollout.tail import pod_name
from r1reward_trainer.logs.place import log_key, prune
from r1reward_trainer.storage.s3 import NotFound, Store
from tests.cluster.layout import REPOSITORY
from tests.cluster.processes import wait_until
from tests.integration.stages.harness import Workplace

DEADLINE = 60.0
SECRETS = {
    "HF_TOKEN": "hf_planted0123456789",
    "R1_TEACHER_API_KEY": "sk-planted0123456789",
    "R1_JUDGE_API_KEY": "jk-planted0123456789",
}
FILES = {"R1_TOKEN_FILE": "planted-attempt-token", "R1_PROGRESS_TOKEN_FILE": "planted-bearer"}
OFTEN = """
import sys
from r1reward_rollout import upload
upload.INTERVAL_SECONDS = 0.3
from r1reward_trainer.cli import main
main()
"""

KEEP_OFTEN = """
import sys
from r1reward_rollout import upload
upload.INTERVAL_SECONDS = 0.3
from r1reward_rollout.keep import main
main()
"""


@pytest.fixture
def workplace(s3: dict[str, str], tmp_path: Path) -> Workplace:
    return Workplace(s3, tmp_path, f"s3://{s3['R1_BUCKET']}/{uuid.uuid4().hex}")


def config_of(workplace: Workplace, model: str, attempt: int = 1) -> RunConfig:
    spec = {
        "runtimeRef": {"name": "cpu"},
        "model": {"uri": model},
        "data": {
            "preferences": [{"uri": f"{workplace.root}/rows/*.parquet"}],
            "maxPromptTokens": 64,
        },
        "evaluate": {"maxNewTokens": 32},
    }
    return workplace.config(spec, Stage.PREPARE, attempt=attempt)


@contextmanager
def running(
    workplace: Workplace, config: RunConfig, verb: str, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`r1 <verb>` as in a pod, with a secret in every place that holds one; it stores often."""
    folder = workplace.folder
    (folder / "run.json").write_text(config.model_dump_json(by_alias=True))
    for name, secret in FILES.items():
        (folder / name).write_text(secret)
    process = subprocess.Popen(
        [sys.executable, "-c", OFTEN, verb],
        env={
            **os.environ,
            **workplace.environ,
            **SECRETS,
            **{name: str(folder / name) for name in FILES},
            "PYTHONPATH": f"{REPOSITORY}/operator:{REPOSITORY}/trainer_image",
            "OMP_NUM_THREADS": "1",
            "R1_LOG_LEVEL": "DEBUG",
            "R1_RUN_CONFIG": str(folder / "run.json"),
            "R1_TERMINATION_LOG": str(folder / "termination"),
            "R1_SCRATCH": str(folder / "scratch"),
            "R1_MODELS": str(folder / "models"),
            **(environ or {}),
        },
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE)


def stored(store: Store, key: str) -> str:
    try:
        return store.get(key).decode()
    except NotFound:
        return ""


def test_a_stage_that_fails_leaves_its_log_without_a_secret(workplace: Workplace) -> None:
    config = config_of(workplace, f"{workplace.root}/no-such-model")
    with running(workplace, config, "prepare") as process:
        _, shown = process.communicate(timeout=DEADLINE)
    assert process.returncode == ExitCode.CONFIGURATION
    log = stored(workplace.store, "jobs/job/logs/prepare/attempt-1/prepare-0.log")
    assert "no-such-model" in log
    assert log.splitlines()[-1].split(" ERROR ")[1].startswith("r1: ")
    # The parent's own words are shown, but not kept.
    assert set(log.splitlines()) <= set(shown.decode().splitlines())
    secrets = [*SECRETS.values(), *FILES.values(), workplace.environ["AWS_SECRET_ACCESS_KEY"]]
    assert not [secret for secret in secrets if secret in log + shown.decode()]


def test_a_kill_leaves_what_was_stored_before(workplace: Workplace) -> None:
    config = config_of(workplace, "hf://organisation/model")
    key = log_key(config, "prepare-0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with running(workplace, config, "prepare", endpoint) as process:
            wait_until(
                "the log is stored",
                lambda: "resolving model and data" in stored(workplace.store, key),
                DEADLINE,
                lambda: None if process.poll() is None else pytest.fail("it has ended"),
            )
            process.kill()
            assert process.wait(DEADLINE) == -signal.SIGKILL
    assert "resolving model and data" in stored(workplace.store, key)


def test_an_init_containers_log_is_named_after_its_pod(workplace: Workplace) -> None:
    config = config_of(workplace, "hf://organisation/model")
    with running(workplace, config, "fetch-model") as process:
        assert process.wait(DEADLINE) == ExitCode.CONFIGURATION
    key = f"jobs/job/logs/prepare/attempt-1/fetch-model-{pod_name()}.log"
    assert "has no model for its servers" in stored(workplace.store, key)


def test_a_server_that_never_becomes_ready_leaves_why(workplace: Workplace) -> None:
    url = workplace.folder / "log-url"
    url.write_text(workplace.store.presign_put("rollout.log", 60))
    environ = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}/trainer_image",
        "R1_LOG_TAIL": str(workplace.folder / "tail"),
        "R1_LOG_URL_FILE": str(url),
        "R1_ROLLOUT_CONFIG": str(workplace.folder / "no-such-file"),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "r1reward_rollout"],
        env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "(R1_ROLLOUT_CONFIG)" in ended.stderr
    assert stored(workplace.store, "rollout.log") == ended.stderr


def test_a_judge_stores_the_log_of_a_server_that_knows_nothing_of_it(workplace: Workplace) -> None:
    url = workplace.folder / "log-url"
    url.write_text(workplace.store.presign_put("judge.log", 60))
    environ = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}/trainer_image",
        "R1_LOG_TAIL": str(workplace.folder / "tail"),
        "R1_LOG_URL_FILE": str(url),
    }
    server = "trap 'echo drained; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [sys.executable, "-c", KEEP_OFTEN, "sh", "-c", server], env=environ, stdout=subprocess.PIPE
    ) as process:
        wait_until(
            "the log is stored while the server runs",
            lambda: stored(workplace.store, "judge.log") == "ready\n",
            DEADLINE,
            lambda: None if process.poll() is None else pytest.fail("it has ended"),
        )
        process.terminate()
        shown, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 7
    assert stored(workplace.store, "judge.log") == shown.decode() == "ready\ndrained\n"


def test_storage_that_is_away_does_not_change_the_outcome(workplace: Workplace) -> None:
    config = config_of(workplace, "hf://organisation/model")
    # Nothing listens there; a stage that it is not configured for ends before it needs storage.
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    with running(workplace, config, "annotate", away) as process:
        assert process.wait(DEADLINE) == ExitCode.PROGRAM
    message = Termination.decode((workplace.folder / "termination").read_text())
    assert message is not None
    assert message.reason == Reason.INVALID_SPEC


def test_a_new_attempt_deletes_the_logs_of_old_ones_and_of_an_earlier_job(
    workplace: Workplace,
) -> None:
    store = workplace.store
    for attempt in (1, 2, 3, 4, 5, 6, 12):
        store.put(f"jobs/job/logs/prepare/attempt-{attempt}/prepare-0.log", b"")
    others = {"jobs/job/logs/rl/attempt-1/trainer-0.log", "jobs/job/report/report.html"}
    for key in others:
        store.put(key, b"")
    prune(store, config_of(workplace, "hf://organisation/model", attempt=7))
    kept = {f"jobs/job/logs/prepare/attempt-{attempt}/prepare-0.log" for attempt in range(3, 7)}
    assert {log.key for log in store.list("jobs/")} == kept | others
