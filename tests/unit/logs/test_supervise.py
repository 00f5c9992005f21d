# SPDX-License-Identifier: Apache-2.0
"""A supervised program, run as a process of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from r1reward_rollout.tail import Tail
from tests.cluster.layout import REPOSITORY

DEADLINE = 30.0

PROGRAM = """
import ctypes, os, signal, subprocess, sys, threading, time
from contextlib import contextmanager
from pathlib import Path
from r1reward_rollout.supervise import supervise

@contextmanager
def beside(tail):
    yield
    Path(sys.argv[1] + ".last").write_bytes(tail.read())

supervise(Path(sys.argv[1]), beside)
"""


class Program:
    """A supervised program under way; `tail` is what was kept while it ran, `last` at its end."""

    def __init__(self, folder: Path, code: str) -> None:
        self._tail = folder / "deep" / "tail"
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", PROGRAM + textwrap.dedent(code), str(self._tail)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "trainer_image")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, error = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, error

    @property
    def tail(self) -> str:
        return Tail(self._tail).read().decode()

    @property
    def last(self) -> str:
        return self._tail.with_name("tail.last").read_text()

    def ready(self) -> None:
        """Waits for the first line."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], Program]:
    return lambda code: Program(tmp_path, code)


Start = Callable[[str], Program]


def test_a_program_ends_as_if_it_were_alone(start: Start) -> None:
    program = start("""
        sys.stdout.write("to out\\n")  # print would write the line in two pieces
        sys.stderr.write("to error\\n")
        subprocess.run(["echo", "of a child"])
        sys.exit(78)
    """)
    assert program.end() == (78, "to out\nof a child\n", "to error\n")
    assert sorted(program.last.splitlines()) == ["of a child", "to error", "to out"]


def test_an_uncaught_error_leaves_its_traceback(start: Start) -> None:
    program = start('raise ValueError("batch of zero rows")')
    assert program.end()[0] == 1
    assert program.last.startswith("Traceback")
    assert "ValueError: batch of zero rows" in program.last


def test_an_abort_below_python_leaves_what_was_said_last(start: Start) -> None:
    program = start("""
        os.write(2, b"terminate called: c10::Error\\n")
        os.abort()
    """)
    assert program.end() == (-signal.SIGABRT, "", "terminate called: c10::Error\n")
    assert program.last == "terminate called: c10::Error\n"


def test_a_program_that_the_kernel_kills_leaves_what_was_said_last(start: Start) -> None:
    program = start("""
        print("too much memory")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert program.end()[0] == -signal.SIGKILL
    assert program.last == "too much memory\n"


def test_a_signal_reaches_the_program_and_its_answer_is_the_outcome(start: Start) -> None:
    program = start("""
        signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(143)))
        print("ready")
        while True:
            signal.pause()
    """)
    program.ready()
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == 143
    assert program.last == "ready\nsaved\n"


def test_a_signal_without_a_handler_ends_both_by_it(start: Start) -> None:
    program = start("""
        print("ready")
        signal.pause()
    """)
    program.ready()
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == -signal.SIGTERM


def test_the_kept_output_outlives_a_kill_of_everything(start: Start) -> None:
    program = start("""
        sys.stdout.write("about to die\\n")  # print would write the line in two pieces
        sys.stderr.write("ready\\n")
        signal.pause()
    """)
    assert program.process.stderr is not None
    assert program.process.stderr.readline() == "ready\n"
    program.process.kill()
    # The pipes end only when the program is gone, too.
    assert program.end()[0] == -signal.SIGKILL
    assert sorted(program.tail.splitlines()) == ["about to die", "ready"]


def test_a_process_that_is_left_behind_holds_nobody_up(start: Start) -> None:
    program = start("""
        left = subprocess.Popen(["sleep", "60"])
        print(left.pid)
    """)
    began = time.monotonic()
    assert program.process.stdout is not None
    left = int(program.process.stdout.readline())
    try:
        assert program.process.wait(DEADLINE) == 0
        assert time.monotonic() - began < 20
    finally:
        os.kill(left, signal.SIGKILL)


def test_a_program_runs_on_when_its_output_has_nowhere_to_go(start: Start) -> None:
    program = start("""
        print("ready")
        sys.stdin.readline()
        for _ in range(3000):
            print("x" * 100)
        sys.exit(3)
    """)
    program.ready()
    assert program.process.stdout is not None
    program.process.stdout.close()
    assert program.process.wait(DEADLINE) == 3
    assert program.last.endswith("x" * 100 + "\n")


def test_a_program_runs_without_a_place_for_its_output(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("a file")
    code, out, error = Program(tmp_path, 'print("works")').end()
    assert (code, out) == (0, "works\n")
    assert error.startswith("output is not kept: ")
