# SPDX-License-Identifier: Apache-2.0
"""How much memory prepare's way of the rows takes, in a process of its own.

A million rows are `make bench-rows`.
"""

from pathlib import Path

from tests.bench.rows import most_bytes, prepared

ROWS = 20_000


def test_the_rows_are_never_all_in_memory(tmp_path: Path) -> None:
    found = prepared(ROWS, tmp_path, 280)
    assert (found["rows"], found["badRows"]) == (ROWS, 0)
    assert found["train"] + found["heldout"] == ROWS
    assert found["peakBytes"] < most_bytes(ROWS)
