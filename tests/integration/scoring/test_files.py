# SPDX-License-Identifier: Apache-2.0
"""`r1 score`: Parquet in S3 to scores in S3, by Ray Data, a real front and a real vLLM server."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1reward_trainer.storage.s3 import Store
from tests.integration.rollout.reference import picture
from tests.integration.scoring.conftest import CLIENT_TOKEN, Pod

pytestmark = pytest.mark.timeout(600)


def parquet(*names: str) -> bytes:
    rows = [
        {"id": n, "question": "Which?", "answers": [n, "other", "third"], "images": [picture(9)]}
        for n in names
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def score(environ: Mapping[str, str], root: str, front: str, token: Path) -> dict[str, Any]:
    """The summary of a run of `r1 score`."""
    command = [sys.executable, "-m", "r1reward_trainer", "score", f"{root}/in/*.parquet"]
    flags = ["--output", f"{root}/out", "--front", front, "--token-file", str(token)]
    done = subprocess.run(
        [*command, *flags, "--processes", "2"],
        env={**os.environ, **environ, "PYTHONPATH": "operator:trainer_image"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_groups_in_parquet_become_scores_once(
    s3: dict[str, str], pod: Pod, front: str, tmp_path: Path
):
    root = f"s3://{s3['R1_BUCKET']}/scoring"
    store = Store(root, s3)
    store.put("in/a.parquet", parquet("a1", "a2"))
    store.put("in/b.parquet", parquet("b1"))
    token = tmp_path / "token"
    token.write_text(CLIENT_TOKEN)
    summary = score(s3, root, front, token)
    assert (summary["rows"], summary["comparisons"], summary["badRows"]) == (3, 9, 0)
    assert summary["weights"] == pod.digest
    parts = sorted(o.key for o in store.list("out") if o.key.endswith(".jsonl"))
    lines = [json.loads(text) for key in parts for text in store.get(key).splitlines()]
    assert [line["id"] for line in lines] == ["a1", "a2", "b1"]
    for line in lines:
        assert sum(s["reward"] for s in line["scores"]) == pytest.approx(0, abs=1e-9)
    written = {o.key: o.etag for o in store.list("out")}
    assert score(s3, root, front, token) == summary
    assert {o.key: o.etag for o in store.list("out")} == written
