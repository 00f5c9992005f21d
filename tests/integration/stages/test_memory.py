# SPDX-License-Identifier: Apache-2.0
"""How much memory prepare's way of the rows takes, in a process of its own.

A million rows are `make bench-rows`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.rows import most_bytes, prepared

ROWS = 20_000
READ = """
import json, sys
from pathlib import Path
from r1reward_trainer.data.files import read
from tests.integration.stages.many_rows import peak_bytes
before = peak_bytes()
rows = sum(1 for _ in read(Path(sys.argv[1]), "rows.parquet", ["id", "image"], []))
print(json.dumps({"rows": rows, "bytes": peak_bytes() - before}))
"""


def test_the_rows_are_never_all_in_memory(tmp_path: Path) -> None:
    found = prepared(ROWS, tmp_path, 280)
    assert (found["rows"], found["badRows"]) == (ROWS, 0)
    assert found["train"] + found["heldout"] == ROWS
    assert found["peakBytes"] < most_bytes(ROWS)


def test_a_parquet_file_of_one_row_group_is_never_whole_in_memory(tmp_path: Path) -> None:
    random, file = np.random.default_rng(0), tmp_path / "rows.parquet"
    images = pa.array([random.bytes(4000) for _ in range(2 * ROWS)], pa.binary())
    pq.write_table(pa.table({"id": list(map(str, range(2 * ROWS))), "image": images}), file)
    assert pq.ParquetFile(file).num_row_groups == 1
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(done.stdout)
    assert found["rows"] == 2 * ROWS
    assert found["bytes"] < file.stat().st_size / 2
