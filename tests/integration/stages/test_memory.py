# SPDX-License-Identifier: Apache-2.0
"""How much memory prepare's way of the rows takes, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_KEPT_BYTES_A_ROW = 700
"""Hashes, ids and the groups of the hold-out; a row itself has more than that and is not kept."""
_BASE_BYTES = 320 * 2**20
"""Interpreter, libraries and buffers, whatever the number of rows."""


def prepared(rows: int, folder: Path, seconds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.integration.stages.many_rows", str(rows), str(folder)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": "operator:trainer_image:.", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [
        pytest.param(20_000, 280, id="20k"),
        pytest.param(1_000_000, 7200, id="1M", marks=[pytest.mark.full, pytest.mark.timeout(7300)]),
    ],
)
def test_the_rows_are_never_all_in_memory(rows: int, seconds: int, tmp_path: Path) -> None:
    found = prepared(rows, tmp_path, seconds)
    assert (found["rows"], found["badRows"]) == (rows, 0)
    assert found["train"] + found["heldout"] == rows
    assert found["peakBytes"] < _BASE_BYTES + rows * _KEPT_BYTES_A_ROW
