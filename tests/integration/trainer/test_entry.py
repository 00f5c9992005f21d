# SPDX-License-Identifier: Apache-2.0
"""A pod that is deleted before its program can say so."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.kube.waiting import eventually

EXIT_BY_SIGTERM = 128 + signal.SIGTERM


def hears_sigterm(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM: process 1 gets no signal without one."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = (line.split()[1] for line in status if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    "program",
    [["r1reward_trainer", "sft"], ["r1reward_trainer.torchrun", "--no-python", "sleep", "60"]],
    ids=["r1", "torchrun"],
)
def test_process_1_ends_on_sigterm_while_it_imports_its_libraries(program: list[str]):
    environment = {**os.environ, "PYTHONPATH": "operator:trainer_image"}
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", *program]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as unshare:
        try:
            eventually(lambda: children(unshare.pid))
            (first,) = children(unshare.pid)
            eventually(lambda: hears_sigterm(first), 60)
            os.kill(first, signal.SIGTERM)
            assert unshare.wait(20) == EXIT_BY_SIGTERM
        finally:
            unshare.kill()


def test_torchrun_says_by_its_exit_code_that_it_was_sigterm(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": "operator:trainer_image"}
    began = tmp_path / "began"
    rank = f"touch {began}; exec sleep 60"
    command = [sys.executable, "-m", "r1reward_trainer.torchrun", "--no-python", "sh", "-c", rank]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as torchrun:
        try:
            eventually(began.exists, 60)
            torchrun.terminate()
            assert torchrun.wait(30) == EXIT_BY_SIGTERM
        finally:
            torchrun.kill()
