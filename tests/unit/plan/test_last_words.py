# SPDX-License-Identifier: Apache-2.0
"""What is shown of a log whose container says nothing else."""

import pytest

from r1reward_api.constants import Stage
from r1reward_api.wire.termination import Termination
from r1reward_operator.plan.last_words import last_words

TORCHRUN = """\
============================================
r1reward_trainer FAILED
--------------------------------------------
Root Cause (first observed failure):
  exitcode  : -6 (pid: 8)  (SIGABRT)
============================================"""
DONE = Termination(stage=Stage.RL, attempt=1, outcome="Succeeded", step=4).encode()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (
            TORCHRUN,
            "r1reward_trainer FAILED\nRoot Cause (first observed failure):\n"
            "  exitcode  : -6 (pid: 8)  (SIGABRT)",
        ),
        (f"{'x' * 600}\nfirst\nlast\n", "first\nlast"),
        ("y" * 600, "y" * 500),
        (DONE, ""),
        ("", ""),
        (None, ""),
    ],
    ids=["torchrun's banner", "a long log", "a long line", "a result", "nothing", "absent"],
)
def test_whole_lines_are_shown_and_no_rules_or_results(written: str | None, shown: str) -> None:
    assert last_words({"exitCode": 1, "message": written}) == shown
