# SPDX-License-Identifier: Apache-2.0
"""Getting new weights ready beside a running model."""

import logging
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from r1reward_rollout.download import NotServed, cache_folder, fetch, opener, prune, require_space
from r1reward_rollout.served import ServedModel, WrongWeights, read_headers
from r1reward_rollout.update_info import UpdateInfo

logger = logging.getLogger("vllm.r1reward.preparation")

_DEFAULT_DEADLINE = 1800.0


class Preparation:
    """One set of weights on its way: ``preparing``, then ``ready`` or ``failed``."""

    def __init__(
        self,
        info: UpdateInfo,
        *,
        folder: Path,
        served: ServedModel,
        keep: frozenset[str],
        http: urllib.request.OpenerDirector,
        deadline_seconds: float,
        after: "Preparation | None",
    ) -> None:
        self.info = info
        self.paths: tuple[Path, ...] = ()
        self.error: str | None = None
        self.misfit = False
        self.not_served = False
        self.seconds = 0.0
        self._folder = folder
        self._served = served
        self._keep = keep | {file.sha256 for file in info.files}
        self._http = http
        self._deadline_seconds = deadline_seconds
        self._after = after
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="r1-prepare-weights", daemon=True)

    def start(self) -> None:
        """Begin in a thread of its own: the caller is the engine's step loop."""
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to stop; whoever comes ``after`` waits for the thread, not the caller."""
        self._cancelled.set()

    @property
    def state(self) -> str:
        """``preparing``, ``ready`` or ``failed``."""
        if self._thread.is_alive():
            return "preparing"
        return "failed" if self.error is not None else "ready"

    def status(self) -> dict[str, str | float | bool | None]:
        """The JSON form that a client polls.

        `misfit`: they are of another model; `notServed`: the store may serve them in a while.
        """
        return {
            "key": self.info.key,
            "state": self.state,
            "error": self.error,
            "misfit": self.misfit,
            "notServed": self.not_served,
            "seconds": round(self.seconds, 3),
        }

    def _run(self) -> None:
        if self._after is not None:
            self._after._thread.join()
            self._after = None
        begin = time.monotonic()
        try:
            prune(self._folder, self._keep)
            require_space(self._folder, self.info.files)
            paths = tuple(
                fetch(
                    self._http,
                    file,
                    self._folder,
                    begin + self._deadline_seconds,
                    self._cancelled.is_set,
                )
                for file in self.info.files
            )
            self._served.check(read_headers(paths), self.info.tensors)
            self.paths = paths
        except Exception as error:  # whatever it was, the thread's only report is this text
            self.misfit = isinstance(error, WrongWeights)
            self.not_served = isinstance(error, NotServed)
            self.error = f"{type(error).__name__}: {error}"
            logger.warning("weights %s refused: %s", self.info.version, self.error)
        finally:
            self.seconds = time.monotonic() - begin


class Preparer:
    """At most one preparation at a time; the newest wish wins."""

    def __init__(self, served: ServedModel, rank: int, environ: Mapping[str, str]) -> None:
        self._served = served
        self._folder = cache_folder(environ, rank)
        self._http = opener(environ)
        self._deadline_seconds = float(
            environ.get("R1_PREPARE_DEADLINE_SECONDS") or _DEFAULT_DEADLINE
        )
        self._loaded: frozenset[str] = frozenset()
        self._current: Preparation | None = None

    def begin(self, info: UpdateInfo) -> dict[str, str | float | bool | None]:
        """Start to prepare ``info``, or go on with it; a failed one is tried again."""
        current = self._current
        if current is None or current.info.key != info.key or current.state == "failed":
            if current is not None:
                current.cancel()
            current = self._current = Preparation(
                info,
                folder=self._folder,
                served=self._served,
                keep=self._loaded,
                http=self._http,
                deadline_seconds=self._deadline_seconds,
                after=current,
            )
            current.start()
        return current.status()

    def status(self, key: str) -> dict[str, str | float | bool | None]:
        """The state of the preparation with this key; ``unknown`` if it is another's."""
        if self._current is None or self._current.info.key != key:
            return {"key": key, "state": "unknown", "error": None, "misfit": False, "seconds": 0.0}
        return self._current.status()

    def take(self, info: UpdateInfo) -> tuple[Path, ...]:
        """The verified files of ``info``; raises RuntimeError unless they are ready."""
        status = self.status(info.key)
        if self._current is None or status["state"] != "ready":
            raise RuntimeError(
                f"weights {info.version} are not prepared ({status['state']}"
                f"{': ' + str(status['error']) if status['error'] else ''}): prepare them first"
            )
        return self._current.paths

    def loaded(self, info: UpdateInfo) -> None:
        """Remember what the model holds, and forget older files."""
        self._loaded = frozenset(file.sha256 for file in info.files)
        if self._current is not None and self._current.info.key == info.key:
            prune(self._folder, self._loaded)

    def close(self) -> None:
        """Stop a running preparation."""
        if self._current is not None:
            self._current.cancel()
