# SPDX-License-Identifier: Apache-2.0
"""A process that writes checkpoints and is killed (SIGKILL) at one point of the second."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1reward_trainer.storage.checkpoint import Checkpoints
from r1reward_trainer.storage.s3 import Store

FINGERPRINTS = {"data": "sha256:1", "tokenizer": "2"}


@dataclass(frozen=True)
class Point:
    """Where the process dies: before or after it writes, or deletes, an object.

    Attributes:
        after: the object is written (deleted).
        name: end of the object's key.
        committed: a later attempt finds the second checkpoint.
    """

    after: bool
    name: str
    committed: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.name}"


POINTS = (
    Point(False, "rank-0", False),
    Point(True, "rank-0", False),
    Point(False, "rank-1", False),
    Point(True, "rank-1", False),
    Point(False, "manifest.json", False),
    Point(True, "manifest.json", False),
    Point(False, "latest.json", False),
    Point(True, "latest.json", True),
    Point(True, "pruned rank-0", True),
    Point(True, "pruned rank-1", True),
)


class MortalStore(Store):
    """A store whose process is killed at a point, once it is armed."""

    point: Point | None = None

    def _reach(self, after: bool, key: str) -> None:
        if self.point and self.point.after is after and key.endswith(self.point.name):
            os.kill(os.getpid(), signal.SIGKILL)

    def put(self, key: str, data: bytes) -> None:
        self._reach(False, key)
        super().put(key, data)
        self._reach(True, key)

    def put_file(self, path: Path, key: str, stop: threading.Event | None = None) -> None:
        self._reach(False, key)
        super().put_file(path, key, stop)
        self._reach(True, key)

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        self._reach(False, key)
        written = super().put_if(key, data, etag)
        self._reach(True, key)
        return written

    def delete_prefix(self, prefix: str) -> None:
        """One object after another, so that it can be torn."""
        for found in self.list(prefix.rstrip("/") + "/"):
            self.delete(found.key)
            self._reach(True, f"pruned {found.key.rpartition('/')[2]}")


def state(folder: Path, step: int) -> Path:
    """The state after a step, in two files."""
    folder.mkdir(exist_ok=True)
    (folder / "rank-0").write_text(f"step {step}")
    (folder / "rank-1").write_text(f"step {step}, other half")
    return folder


def commit(own: Checkpoints, folder: Path, step: int) -> None:
    own.commit(step, own.upload(step, state(folder, step)))


def killed_at(point: Point, uri: str, environ: Mapping[str, str], folder: Path) -> int | None:
    """Attempt 1 commits step 5 and is killed at the point of step 10; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["httpx", "minio", "pydantic"])  # imported once, not per kill
    process = context.Process(target=_write, args=(point, uri, dict(environ), folder))
    process.start()
    process.join(60)
    return process.exitcode


def _write(point: Point, uri: str, environ: Mapping[str, str], folder: Path) -> None:
    store = MortalStore(uri, environ)
    own = Checkpoints(store, "run", 1, 1, "first", FINGERPRINTS)
    own.claim()
    commit(own, folder, 5)
    store.point = point
    commit(own, folder, 10)
