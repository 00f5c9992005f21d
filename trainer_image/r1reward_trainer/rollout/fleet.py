# SPDX-License-Identifier: Apache-2.0
"""All rollout servers of a stage as one: the synchronous, thread-safe face of the controller."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self, TypeVar

from r1reward_trainer.logs.pod import PodLog
from r1reward_trainer.rollout.controller import FleetController
from r1reward_trainer.rollout.discovery import resolve_service
from r1reward_trainer.rollout.options import FleetOptions
from r1reward_trainer.rollout.types import (
    GenerateRequest,
    GenerateResult,
    RolloutError,
    ServerStatus,
    UpdateTiming,
    WeightVersion,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CLOSE_DEADLINE = 10.0


class RolloutFleet:
    """Thread-safe and synchronous; an event loop of its own runs in a background thread.

    ``presign`` turns a weight file's key into a URL that servers can GET; ``resolve`` turns the
    service's name and port into addresses, or raises OSError.
    """

    def __init__(
        self,
        options: FleetOptions,
        *,
        token: str,
        presign: Callable[[str], str],
        resolve: Callable[[str, int], frozenset[str]] = resolve_service,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="r1-rollout-fleet", daemon=True
        )
        self._closed = False
        self._thread.start()
        self._controller = self._run(
            FleetController.started(options, token=token, presign=presign, resolve=resolve)
        )

    def set_weights(self, weights: WeightVersion) -> dict[str, UpdateTiming]:
        """Bring every reachable server to ``weights``; by address, what it took.

        The servers fetch and verify while they still answer; then each swaps, when no
        :meth:`generate` of this fleet is under way. Waits up to ``no_server_timeout`` for a
        server that stays. Servers that are not reachable now get the weights when they come
        (back), before any prompt. Raises :class:`NoHealthyServer` when there is no server,
        and :class:`WeightUpdateFailed` when no server took them, or could fetch them for
        ``no_store_timeout``: the weights set before stay.
        """
        return self._run(self._controller.set_weights(weights))

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """Answers in the order of the requests, all from the weights last set.

        Work of a server that dies moves to the others. Raises :class:`NoHealthyServer`,
        :class:`RequestRefused` or :class:`PromptMismatch`.
        """
        return self._run(self._controller.generate(requests))

    def status(self) -> list[ServerStatus]:
        """What is known of every server, by address."""
        return self._run(self._controller.status())

    def logs(self) -> list[PodLog]:
        """The last output of every server that answers, whether or not it is healthy."""
        return self._run(self._controller.logs())

    def close(self) -> None:
        """Stop the background thread and close every connection."""
        if self._closed:
            return
        try:
            self._run(self._controller.close(), timeout=_CLOSE_DEADLINE)
        except TimeoutError:  # the thread is a daemon: it does not outlive the process
            logger.warning("the rollout fleet did not end in %g s", _CLOSE_DEADLINE)
        finally:
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_DEADLINE)
            if not self._thread.is_alive():
                self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Wait for the work; its own deadlines bound it, and a signal's exception ends it."""
        if self._closed:
            work.close()
            raise RolloutError("the fleet is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except CancelledError:
            raise RolloutError("the fleet was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
