# SPDX-License-Identifier: Apache-2.0
"""The worker threads between the queue and the reconcile function."""

import logging
import threading
from collections.abc import Callable

from r1reward_operator.kube.clock import Clock, SystemClock
from r1reward_operator.kube.errors import Conflict, Forbidden, NotLeader, TooManyRequests
from r1reward_operator.kube.queue import RateLimitedQueue, ShutDown
from r1reward_operator.kube.store import Key

logger = logging.getLogger(__name__)

Reconcile = Callable[[str, str], float | None]
"""Gets namespace and name; returns in how many seconds to come again, or None."""

_POLL = 5.0


class Controller:
    """Gives the keys of a queue to a reconcile function, in some threads, for ever.

    Args:
        queue: where keys come from.
        reconcile: level-triggered; may raise anything.
        workers: how many threads.
        active: whether to reconcile at all. Keys are dropped while it says no, and so are
            keys whose reconcile raised `NotLeader`: who turns it on adds all keys again.
        on_result: gets `success`, `requeue`, `conflict`, `throttled`, `inactive` or
            `error`, and the seconds that it took.
        clock: for the seconds.
    """

    def __init__(
        self,
        queue: RateLimitedQueue[Key],
        reconcile: Reconcile,
        workers: int,
        *,
        active: Callable[[], bool] = lambda: True,
        on_result: Callable[[str, float], None] = lambda result, seconds: None,
        clock: Clock | None = None,
    ) -> None:
        self._queue = queue
        self._reconcile = reconcile
        self._active = active
        self._on_result = on_result
        self._clock = clock or SystemClock()
        self._threads = [
            threading.Thread(target=self._work, name=f"reconcile-{i}", daemon=True)
            for i in range(workers)
        ]
        self._errors: dict[Key, str] = {}

    def start(self) -> None:
        """Starts the workers."""
        for thread in self._threads:
            thread.start()

    def join(self, timeout: float) -> bool:
        """Shuts the queue down and waits for reconciles under way.

        Returns:
            Whether all workers have ended within `timeout` seconds.
        """
        self._queue.shut_down()
        deadline = self._clock.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def run(self, stop: threading.Event, grace: float = 30.0) -> bool:
        """Works until `stop` is set, then as `join`."""
        self.start()
        stop.wait()
        return self.join(grace)

    def _work(self) -> None:
        while True:
            try:
                key = self._queue.get(_POLL)
            except ShutDown:
                return
            if key is None:
                continue
            started = self._clock.monotonic()
            try:
                result = self._process(key)
                self._on_result(result, self._clock.monotonic() - started)
            except Exception:
                logger.exception("the controller failed at %s/%s", *key)
            finally:
                self._queue.done(key)

    def _process(self, key: Key) -> str:
        """Reconciles one key and puts it back as its outcome wants. Returns the outcome."""
        if not self._active():
            self._settle(key)
            return "inactive"
        try:
            after = self._reconcile(*key)
        except NotLeader:
            self._settle(key)
            return "inactive"
        except Conflict as error:
            # What was read is old; the newer state is on its way.
            logger.debug("%s/%s: %s", *key, error)
            self._queue.add_rate_limited(key)
            return "conflict"
        except TooManyRequests as error:
            logger.warning("%s/%s: again in %.1f s: %s", *key, error.retry_after, error)
            self._queue.add_after(key, error.retry_after)
            return "throttled"
        except Exception as error:
            self._report(key, error)
            self._queue.add_rate_limited(key)
            return "error"
        self._settle(key)
        if after is None:
            return "success"
        self._queue.add_after(key, after)
        return "requeue"

    def _settle(self, key: Key) -> None:
        self._queue.forget(key)
        self._errors.pop(key, None)

    def _report(self, key: Key, error: Exception) -> None:
        """Logs the traceback of an error once, and one line each time that it comes again."""
        if isinstance(error, Forbidden) and error.is_terminating:
            logger.info("%s/%s: nothing can be made, its namespace is being deleted", *key)
            return
        text = f"{type(error).__name__}: {error}"
        if self._errors.get(key) == text:
            logger.warning("%s/%s failed again: %s", *key, text)
            return
        self._errors[key] = text
        logger.error("reconciling %s/%s failed", *key, exc_info=error)
