# SPDX-License-Identifier: Apache-2.0
"""A small parent that keeps a program's last output.

Why a parent and not a logging handler or a thread: what explains a death (a traceback, an
abort inside torch, a library's print) is written to the file descriptors by a process that is
about to end, and in a container nothing outlives process 1. A parent that is process 1 has
read all of it, whatever happened to the program, and can still store it. For everybody else it
is transparent: signals are passed on, the output goes where it went before, the program's exit
code or signal is its own. Standard library alone: the trainer image uses it, too.
"""

import ctypes
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NoReturn

from r1reward_rollout.tail import CHUNK_BYTES, Tail

PASSED_ON = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_WAITED_FOR = (*PASSED_ON, signal.SIGCHLD)
DRAIN_SECONDS = 1.0
"""Processes that the program left behind may hold its output open: no longer wait for them."""

_PR_SET_PDEATHSIG = 1


def supervise(path: Path, beside: Callable[[Tail], AbstractContextManager[Any]]) -> None:
    """Divides the process in two: the program, which alone returns from here, and its parent.

    Comes first in a program, before any thread is started. Without a place for the tail there
    is no parent, and the program runs all the same.

    Args:
        path: file of the tail; folders are made.
        beside: entered and left in the parent, around the program's life.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tail = Tail(path)
    except OSError as error:
        print(f"output is not kept: {path}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return
    sys.stdout.flush()
    sys.stderr.flush()
    outputs = {file: os.pipe() for file in (1, 2)}
    # A signal that comes now waits until both know what to do with it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    parent = os.getpid()
    program = os.fork()
    if program == 0:
        for file, (reading, writing) in outputs.items():
            os.dup2(writing, file)
            os.close(reading)
            os.close(writing)
        _end_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return
    for _, writing in outputs.values():
        os.close(writing)
    with beside(tail):
        pumps = [
            threading.Thread(target=_pump, args=(reading, file, tail), daemon=True)
            for file, (reading, _) in outputs.items()
        ]
        for pump in pumps:
            pump.start()
        status = _wait(program)
        for pump in pumps:
            pump.join(DRAIN_SECONDS)
    _end_like(os.waitstatus_to_exitcode(status))


def _end_with(parent: int) -> None:
    """The program is killed when its parent is: who kills the one means both."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _send(program: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(program, number)


def _wait(program: int) -> int:
    """The program's wait status; signals are passed on. Process 1 also gets the orphans of the
    container.

    The signals stay blocked, in every thread, and are taken one by one: a handler would not run
    for one that comes just before `os.wait` begins to sleep, and a SIGTERM would be lost.
    """
    while True:
        number = signal.sigwait(_WAITED_FOR)
        if number != signal.SIGCHLD:
            _send(program, number)
            continue
        ended = -1
        while ended != 0:  # one signal may stand for several
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == program:
                return status


def _pump(source: int, target: int, tail: Tail) -> None:
    """Passes output on. Where it cannot be written it is dropped: the program goes on."""
    while data := os.read(source, CHUNK_BYTES):
        with suppress(OSError):
            tail.append(data)
        with suppress(OSError):
            _write(target, data)


def _write(target: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(target, data) :]
        except BlockingIOError:
            select.select([], [target], [])


def _end_like(code: int) -> NoReturn:
    """Ends with the program's exit code, or by the signal that ended it."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its own
        with suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (-code,))
        os.kill(os.getpid(), -code)
        # Process 1 of a container survives its own signals; this is what runtimes report.
        code = 128 - code
    os._exit(code)
