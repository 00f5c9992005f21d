# SPDX-License-Identifier: Apache-2.0
"""Daemons that outlive the command which starts them.

A daemon is known by its pid and start time (a pid alone may be another
process's by now) and by a mark in its environment, which its own children
inherit: so teardown also finds what a killed `up` never wrote down.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.cluster.errors import ClusterError

MARK = "R1REWARD_CLUSTER"
POLL = 0.1


@dataclass(frozen=True)
class Daemon:
    """A program to keep running; `grace` is how long it may take to end."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    grace: float = 10.0


@dataclass(frozen=True)
class _Record:
    pid: int
    started: int
    command: str


class Supervisor:
    """Starts, watches and ends the daemons of one folder (`pids/`, `logs/`).

    With `tied` they end together with this process, however it ends.
    """

    def __init__(self, folder: Path, *, tied: bool = False) -> None:
        self.folder = folder
        self.tied = tied
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._started):
            self.stop(name, grace=0)

    def start(self, daemon: Daemon) -> bool:
        """Starts the daemon unless it runs with these very arguments; True if it did."""
        record = self._read(daemon.name)
        if record and _runs(record) and record.command == _command(daemon):
            return False
        self.stop(daemon.name, daemon.grace)
        log = self.log(daemon.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        tie = ("setpriv", "--pdeathsig", "KILL", "--") if self.tied else ()
        with log.open("wb") as output:
            process = subprocess.Popen(
                (*tie, *daemon.argv),
                env={**os.environ, **daemon.environment, MARK: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started[daemon.name] = process
        self._write(daemon.name, _Record(process.pid, _start_time(process.pid), _command(daemon)))
        return True

    def running(self, name: str) -> int | None:
        """The daemon's pid, or None."""
        record = self._read(name)
        return record.pid if record and _runs(record) else None

    def names(self) -> list[str]:
        """Every daemon that was started and not stopped, dead ones too."""
        return sorted(path.stem for path in self._pids.glob("*.json"))

    def log(self, name: str) -> Path:
        """Where the daemon's output goes."""
        return self.folder / "logs" / f"{name}.log"

    def check(self) -> None:
        """Raises `ClusterError` with the last log lines of a daemon that died."""
        if dead := self.dead():
            raise ClusterError(self.last_words(dead[0]))

    def dead(self) -> list[str]:
        """Every daemon that was started, not stopped, and does not run."""
        for process in self._started.values():
            process.poll()
        return [name for name in self.names() if self.running(name) is None]

    def last_words(self, name: str) -> str:
        """That a daemon died, and the last lines of its log."""
        return f"{name} died; the end of {self.log(name)}:\n{self._tail(name)}"

    def stop(self, name: str, grace: float = 10.0) -> None:
        """Ends the daemon: SIGTERM, after `grace` seconds SIGKILL."""
        record = self._read(name)
        if record and _runs(record):
            end([record.pid], grace)
        self._path(name).unlink(missing_ok=True)

    def strays(self) -> list[int]:
        """Processes that this folder's daemons left behind, by the mark in their environment."""
        mark = f"{MARK}={self.folder}".encode()
        return [pid for pid in _pids() if mark in _environment(pid)]

    def _tail(self, name: str, lines: int = 12) -> str:
        try:
            text = self.log(name).read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(line[:400] for line in text.splitlines()[-lines:])

    @property
    def _pids(self) -> Path:
        return self.folder / "pids"

    def _path(self, name: str) -> Path:
        return self._pids / f"{name}.json"

    def _read(self, name: str) -> _Record | None:
        try:
            return _Record(**json.loads(self._path(name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _write(self, name: str, record: _Record) -> None:
        self._pids.mkdir(parents=True, exist_ok=True)
        temporary = self._pids / f".{name}"
        temporary.write_text(json.dumps(record.__dict__))
        temporary.replace(self._path(name))


def end(pids: Iterable[int], grace: float) -> None:
    """SIGTERM to all, and SIGKILL to whoever is there after `grace` seconds."""
    left = {pid: started for pid in pids if (started := _start_time(pid))}
    for sign, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        if seconds <= 0:
            continue
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            _reap(left)
            left = {pid: started for pid, started in left.items() if _start_time(pid) == started}
            time.sleep(POLL if left else 0)


def wait_until(
    what: str, probe: Callable[[], bool], deadline: float, check: Callable[[], None]
) -> None:
    """Polls `probe` until it is true; `check` raises when that cannot happen any more."""
    give_up = time.monotonic() + deadline
    while not probe():
        check()
        if time.monotonic() > give_up:
            raise ClusterError(f"{what}: not so after {deadline:.0f} s")
        time.sleep(POLL)


def _command(daemon: Daemon) -> str:
    content = json.dumps([daemon.argv, sorted(daemon.environment.items())])
    return hashlib.sha256(content.encode()).hexdigest()


def _runs(record: _Record) -> bool:
    return record.started > 0 and _start_time(record.pid) == record.started


def _start_time(pid: int) -> int:
    """Clock ticks since boot at which the process started; 0 if it is gone or a zombie.

    A zombie whose other threads still end is not gone: they hold its sockets open.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = stat.rpartition(")")[2].split()
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    return 0 if state in "ZX" and threads <= 1 else started


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208


def _reap(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
