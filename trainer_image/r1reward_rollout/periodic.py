# SPDX-License-Identifier: Apache-2.0
"""Work that is done now and then beside the program, and may fail without harm.

Standard library alone: the trainer image uses it, too.
"""

import logging
import random
import threading
from collections.abc import Callable
from types import TracebackType

logger = logging.getLogger(__name__)


class Periodic:
    """A thread that works at every interval and once more at the end. Use it as a context.

    What the work raises is logged, the first time in a row, and goes no further.

    Args:
        name: in logs.
        work: what is to be done.
        interval: seconds; up to a fifth less, so that many pods do not come together.
        last_seconds: how long leaving the context waits for the last time.
        first: seconds before the first time, if not `interval`; the pause doubles until it is
            `interval`.
        pause: waits so many seconds or until the end; True at the end.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        interval: float,
        last_seconds: float,
        first: float | None = None,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self._name = name
        self._work = work
        self._interval = interval
        self._first = interval if first is None else first
        self._last_seconds = last_seconds
        self._ended = threading.Event()
        self._pause = pause or self._ended.wait
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> "Periodic":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(self._last_seconds)

    def _run(self) -> None:
        seconds = self._first
        while not self._pause(seconds * random.uniform(0.8, 1.0)):
            self._once()
            seconds = min(2 * seconds, self._interval)
        self._once()

    def _once(self) -> None:
        try:
            self._work()
        except Exception as error:  # whatever it is, the program goes on
            if not self._failing:
                logger.warning("%s: %s: %s", self._name, type(error).__name__, error)
            self._failing = True
        else:
            self._failing = False
