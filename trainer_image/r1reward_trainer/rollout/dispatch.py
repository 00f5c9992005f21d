# SPDX-License-Identifier: Apache-2.0
"""Spreads prompts over the servers that may have them."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from r1reward_trainer.rollout.server import Server
from r1reward_trainer.rollout.types import (
    GenerateRequest,
    GenerateResult,
    NoHealthyServer,
    NotReached,
    ServerUnavailable,
    StaleWeights,
)

_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 15.0
_BLAMELESS = (NotReached, StaleWeights)
"""The prompt was not sent, or to a server that has just restarted: no sign that it does harm."""


@dataclass(eq=False)
class _Work:
    """One prompt on its way: it waits, is on one server, or waits out a pause after a failure.

    ``failures`` paces the tries and ``blamed`` bounds them, as a prompt may be what ends servers;
    ``deadline`` (of the loop's clock) bounds those that are not blamed on it.
    """

    request: GenerateRequest
    version: str
    answer: asyncio.Future[GenerateResult]
    failures: int = 0
    blamed: int = 0
    deadline: float = math.inf
    failed_on: str = ""


def backoff(failures: int) -> float:
    """Seconds before try ``failures + 1``: doubling, bounded, with jitter."""
    return min(_FIRST_BACKOFF * 2 ** (failures - 1), _LONGEST_BACKOFF) * random.uniform(0.5, 1.0)


def choose(servers: Iterable[Server], avoid: str) -> Server | None:
    """The usable server with the least in flight, another one than ``avoid`` if there is one."""
    free = [server for server in servers if server.usable and server.in_flight < server.limit]
    return min(free, key=lambda s: (s.address == avoid, s.in_flight, s.address), default=None)


class Dispatcher:
    """A queue that is served whenever something changes; for one event loop."""

    def __init__(
        self,
        servers: Callable[[], Iterable[Server]],
        *,
        attempts: int,
        no_server_timeout: float,
        reasons: Callable[[], str],
    ) -> None:
        self._servers = servers
        self._attempts = attempts
        self._no_server_timeout = no_server_timeout
        self._reasons = reasons
        self._pending: deque[_Work] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._give_up: asyncio.TimerHandle | None = None

    async def answer(
        self, requests: Sequence[GenerateRequest], version: str
    ) -> list[GenerateResult]:
        """All answers in order; the first failure gives up the rest."""
        loop = asyncio.get_running_loop()
        works = [_Work(request, version, loop.create_future()) for request in requests]
        self._pending.extend(works)
        self.pump()
        try:
            return await asyncio.gather(*(work.answer for work in works))
        finally:
            for work in works:
                if not work.answer.done():
                    work.answer.cancel()
                elif not work.answer.cancelled():
                    work.answer.exception()  # gather reports the first one alone
            self.pump()

    def pump(self) -> None:
        """Start whatever can be started; call it after every change of any server."""
        servers = list(self._servers())
        while self._pending:
            if self._pending[0].answer.done():
                self._pending.popleft()
                continue
            server = choose(servers, self._pending[0].failed_on)
            if server is None:
                break
            self._start(self._pending.popleft(), server)
        starving = bool(self._pending) and not any(server.usable for server in servers)
        if starving and self._give_up is None:
            loop = asyncio.get_running_loop()
            self._give_up = loop.call_later(self._no_server_timeout, self._starved)
        elif not starving and self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None

    def _start(self, work: _Work, server: Server) -> None:
        server.in_flight += 1
        task = asyncio.create_task(self._serve(work, server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # whoever gives up the answer gives up the request, which the server then aborts
        work.answer.add_done_callback(lambda _: task.cancel())

    async def _serve(self, work: _Work, server: Server) -> None:
        try:
            result = await server.call(server.client.generate(work.request, work.version))
        except ServerUnavailable as error:
            if server.usable:
                server.suspect(str(error))
            self._failed(work, server, error)
        except Exception as error:
            if not work.answer.done():
                work.answer.set_exception(error)
        else:
            if not work.answer.done():
                work.answer.set_result(result)
        finally:
            server.in_flight -= 1
            self.pump()

    def _failed(self, work: _Work, server: Server, error: ServerUnavailable) -> None:
        if work.answer.done():
            return
        loop = asyncio.get_running_loop()
        work.failures += 1
        work.failed_on = server.address
        if isinstance(error, _BLAMELESS):
            work.deadline = min(work.deadline, loop.time() + self._no_server_timeout)
        else:
            work.blamed += 1
        if work.blamed >= self._attempts or loop.time() > work.deadline:
            work.answer.set_exception(
                NoHealthyServer(
                    f"request {work.request.id} failed {work.failures} times, at last: {error}; "
                    f"servers: {self._reasons()}"
                )
            )
        else:
            loop.call_later(backoff(work.failures), self._again, work)

    def _again(self, work: _Work) -> None:
        self._pending.appendleft(work)
        self.pump()

    def _starved(self) -> None:
        self._give_up = None
        reason = f"no usable server for {self._no_server_timeout:g} s: {self._reasons()}"
        while self._pending:
            work = self._pending.popleft()
            if not work.answer.done():
                work.answer.set_exception(NoHealthyServer(reason))
