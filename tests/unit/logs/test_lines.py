# SPDX-License-Identifier: Apache-2.0
"""What a message shows of data and of other services is one line of the log."""

import logging
import os
import subprocess
import sys

from r1reward_trainer.logs.lines import OneLine

FORGED = "x\r\n2026-01-01 00:00:00,000 ERROR r1: forged\x1b[2J\x9b31m\u2028\u202e"


def test_a_name_out_of_an_argument_neither_ends_its_line_nor_steers_the_terminal() -> None:
    command = [sys.executable, "-m", "r1reward_trainer", "score", f"{FORGED}.jsonl"]
    command += ["--output", "scores", "--front", "http://127.0.0.1:9", "--token-file", "token"]
    environment = {**os.environ, "PYTHONPATH": "operator:trainer_image"}
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=250)
    assert ended.returncode
    (line,) = [line for line in ended.stderr.decode().split("\n") if "forged" in line]
    assert line.isprintable()
    assert ".jsonl" in line


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("r1", logging.ERROR, "", 0, "a\nb é", None, sys.exc_info())
    first, *trace = OneLine("%(name)s: %(message)s").format(record).split("\n")
    assert first == r"r1: a\nb é"
    assert trace[0].startswith("Traceback")
