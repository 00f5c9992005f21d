# SPDX-License-Identifier: Apache-2.0
"""A pod whose scratch volume is full, in a process that really has a small disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1reward_api.constants import ExitCode, Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.termination import FailureClass, Termination
from tests.integration.s3_client import unfinished_uploads
from tests.integration.stages.harness import Workplace
from tests.small_disk import small_disk


@pytest.mark.full
def test_a_model_that_does_not_fit_is_named_with_the_remedy(
    workplace: Workplace, model_uri: str, tmp_path: Path
):
    workplace.open_store(f"{workplace.root}/rows").put("rows.jsonl", b"{}\n")
    spec = {
        "runtimeRef": {"name": "cpu"},
        "model": {"uri": model_uri},
        "data": {
            "preferences": [{"uri": f"{workplace.root}/rows/*.jsonl"}],
            "maxPromptTokens": 64,
        },
        "evaluate": {"maxNewTokens": 32},
    }
    config = workplace.config(spec, Stage.PREPARE)
    (tmp_path / "run.json").write_text(config.model_dump_json(by_alias=True))
    scratch, termination = tmp_path / "scratch", tmp_path / "termination"
    scratch.mkdir()
    done = subprocess.run(
        [*small_disk(scratch, "2m"), sys.executable, "-m", "r1reward_trainer", "prepare"],
        env={
            **os.environ,
            **workplace.environ,
            "PYTHONPATH": "operator:trainer_image:.",
            "R1_RUN_CONFIG": str(tmp_path / "run.json"),
            "R1_SCRATCH": str(scratch),
            "R1_TERMINATION_LOG": str(termination),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == ExitCode.PROGRAM, done.stderr[-3000:]
    message = Termination.decode(termination.read_text())
    assert message is not None
    assert (message.reason, message.failure_class) == (Reason.DISK_FULL, FailureClass.PROGRAM)
    assert f"{model_uri}/model.safetensors does not fit" in (message.message or "")
    assert "raise `scratch` of the role in the runtime" in (message.message or "")
    assert list(workplace.store.list("stages/")) == []
    assert unfinished_uploads(workplace.environ, workplace.root.split("/", 3)[3]) == []
    for secret in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert workplace.environ[secret] not in done.stderr + termination.read_text()
