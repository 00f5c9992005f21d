# SPDX-License-Identifier: Apache-2.0
"""The token between the containers of a served model's pod."""

import stat
from pathlib import Path

from r1reward_trainer.stages.fetch_model import make_token


def test_it_is_another_one_every_time_and_nobody_elses(tmp_path: Path):
    path = tmp_path / "server-token"
    tokens = set()
    for _ in range(3):  # an init container may run again
        make_token(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        tokens.add(path.read_text())
    assert len(tokens) == 3
    assert min(len(token) for token in tokens) >= 32
