# SPDX-License-Identifier: Apache-2.0
"""`make bench-rows`: a million rows through prepare's way of the rows, and its peak of memory.

Beside it, in the same run, the peak of a process that holds the same rows in a list.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULT = Path("docs/results/rows.json")
KEPT_BYTES_A_ROW = 700
"""Hashes, ids and the groups of the hold-out; a row itself has more than that and is not kept."""
BASE_BYTES = 320 * 2**20
"""Interpreter, libraries and buffers, whatever the number of rows."""

_HELD = """
import json, sys
from tests.integration.stages.many_rows import peak_bytes
rows = [json.loads(line) for line in open(sys.argv[1])]
print(json.dumps({"rows": len(rows), "peakBytes": peak_bytes()}))
"""


def most_bytes(rows: int) -> int:
    """The bound of the peak for so many rows, in bytes."""
    return BASE_BYTES + rows * KEPT_BYTES_A_ROW


def prepared(rows: int, folder: Path, seconds: float) -> dict[str, Any]:
    """What `many_rows` prints: rows of either side, bytes of the file and of the peak.

    Raises:
        subprocess.SubprocessError: when it fails, or takes longer than `seconds`.
    """
    module = ["-m", "tests.integration.stages.many_rows"]
    return _figures([*module, str(rows), str(folder)], seconds)


def main() -> int:
    """Measures, writes the result, and fails when the peak is over its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        ours = prepared(arguments.rows, Path(folder), 7200)
        seconds = time.perf_counter() - began
        held = _figures(["-c", _HELD, f"{folder}/rows.jsonl"], 1200)
    result = {
        "command": f"make bench-rows ROWS={arguments.rows}",
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("pyarrow", "pillow", "numpy")},
        },
        **ours,
        "boundBytes": most_bytes(arguments.rows),
        "secondsWithWritingTheRows": round(seconds),
        "peakBytesOfRowsInAList": held["peakBytes"],
        "ratio": round(ours["peakBytes"] / held["peakBytes"], 3),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + f"\n{arguments.out}\n")
    return int(ours["peakBytes"] >= result["boundBytes"])


def _figures(arguments: list[str], seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": "operator:trainer_image:.", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
