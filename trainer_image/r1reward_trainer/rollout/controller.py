# SPDX-License-Identifier: Apache-2.0
"""Discovery, health and weights of the servers, on one event loop.

Each server has a watch of its own, which proves its identity and compares its weights again and
again, and brings it to the current weights when they differ: so a server that restarted, joined
late or missed an update needs no special case. The dispatcher only ever sees servers that are
proven and current; and every answer states the weights of each of its tokens, so that what is
returned is of the current weights even if a server restarts between two looks.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from r1reward_trainer.logs.pod import PodLog
from r1reward_trainer.rollout.client import NoAnswer, RolloutClient, Timeouts
from r1reward_trainer.rollout.dispatch import Dispatcher, backoff
from r1reward_trainer.rollout.options import FleetOptions
from r1reward_trainer.rollout.queue import next_limit
from r1reward_trainer.rollout.server import Server, State
from r1reward_trainer.rollout.types import (
    GenerateRequest,
    GenerateResult,
    NoHealthyServer,
    RolloutError,
    ServerLost,
    ServerStatus,
    UpdateTiming,
    WeightsMisfit,
    WeightsNotServed,
    WeightUpdateFailed,
    WeightVersion,
    WrongWeights,
)

logger = logging.getLogger(__name__)

_LONGEST_UPDATE_PAUSE = 60.0


class _AllLost(WeightUpdateFailed):
    """Every server went away while it was updated; none refused the weights."""


class _NotServed(WeightUpdateFailed):
    """No server took them, and one at least could not fetch them from the store."""


class FleetController:
    """The asynchronous core of :class:`r1reward_trainer.rollout.fleet.RolloutFleet`."""

    def __init__(
        self,
        options: FleetOptions,
        *,
        token: str,
        presign: Callable[[str], str],
        resolve: Callable[[str, int], frozenset[str]],
    ) -> None:
        self._options = options
        self._token = token
        self._presign = presign
        self._resolve = resolve
        self._servers: dict[str, Server] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._target: WeightVersion | None = None
        self._unresolved = "not resolved yet"
        self._one_update = asyncio.Lock()
        self._generating = 0
        self._swapping = False
        self._change = asyncio.Event()
        self._dispatcher = Dispatcher(
            self._servers.values,
            attempts=options.request_attempts,
            no_server_timeout=options.no_server_timeout,
            reasons=self._reasons,
        )

    @classmethod
    async def started(
        cls,
        options: FleetOptions,
        *,
        token: str,
        presign: Callable[[str], str],
        resolve: Callable[[str, int], frozenset[str]],
    ) -> "FleetController":
        """A controller that is looking for servers already."""
        controller = cls(options, token=token, presign=presign, resolve=resolve)
        controller._spawn(controller._discover())
        return controller

    async def close(self) -> None:
        """End every task and connection."""
        own = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not own]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.client.close()

    async def status(self) -> list[ServerStatus]:
        """By address."""
        return [self._servers[address].status() for address in sorted(self._servers)]

    async def logs(self) -> list[PodLog]:
        """See :meth:`RolloutFleet.logs`."""
        asked = [server.client.log() for server in self._servers.values()]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [log for log in found if isinstance(log, PodLog)]

    # --- prompts ---

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """See :meth:`RolloutFleet.generate`."""
        await self._until(lambda: not self._swapping)
        if self._target is None:
            raise RolloutError("no weights are set: call set_weights before generate")
        self._generating += 1
        try:
            return await self._dispatcher.answer(requests, self._target.version)
        finally:
            self._generating -= 1
            self._changed()

    # --- weights ---

    async def set_weights(self, weights: WeightVersion) -> dict[str, UpdateTiming]:
        """See :meth:`RolloutFleet.set_weights`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.no_server_timeout
        async with self._one_update:
            failures, fetched_by = 0, None
            while True:
                servers = await self._first_servers(deadline)
                try:
                    async with contextlib.AsyncExitStack() as held:
                        for server in servers:
                            await held.enter_async_context(server.updating)
                        return await self._update_all(servers, weights)
                except _AllLost:
                    if loop.time() > deadline:
                        raise
                except _NotServed:  # each try signs anew
                    fetched_by = fetched_by or loop.time() + self._options.no_store_timeout
                    if loop.time() > min(deadline, fetched_by):
                        raise
                finally:
                    self._look_again()
                failures += 1
                await asyncio.sleep(backoff(failures))

    async def _update_all(
        self, servers: Sequence[Server], weights: WeightVersion
    ) -> dict[str, UpdateTiming]:
        """Prepare everywhere, then swap everywhere; the servers' ``updating`` is held."""
        prepared = await self._everywhere(
            servers, lambda server: self._prepare(server, weights), weights
        )
        self._swapping = True
        try:
            await self._until(lambda: self._generating == 0)
            paused = await self._everywhere(
                prepared, lambda server: self._commit(server, weights), weights
            )
            self._target = weights
            for server in self._servers.values():
                server.failed_updates, server.update_not_before = 0, 0.0
                if server in paused:
                    server.become(State.READY)
                elif server.usable:
                    server.become(State.STALE, f"not at weights {weights.version} yet")
        finally:
            self._swapping = False
        return {
            server.address: UpdateTiming(prepare=prepared[server], paused=paused[server])
            for server in paused
        }

    async def _first_servers(self, deadline: float) -> list[Server]:
        """The proven servers, when each known one was looked at and there is one at all."""

        def found() -> bool:
            known = self._servers.values()
            return all(server.checked for server in known) and any(s.proven for s in known)

        try:
            async with asyncio.timeout_at(deadline):
                await self._until(found)
        except TimeoutError:
            seconds = self._options.no_server_timeout
            raise NoHealthyServer(
                f"no rollout server in {seconds:g} s: {self._reasons()}"
            ) from None
        return [server for server in self._servers.values() if server.proven]

    async def _everywhere(
        self,
        servers: Iterable[Server],
        step: Callable[[Server], Coroutine[Any, Any, float]],
        weights: WeightVersion,
    ) -> dict[Server, float]:
        """The step on all of them at once; by server, the seconds of those that succeeded.

        Raises WeightUpdateFailed when none did.
        """
        asked = list(servers)
        results = await asyncio.gather(*map(step, asked), return_exceptions=True)
        done: dict[Server, float] = {}
        for server, result in zip(asked, results, strict=True):
            if isinstance(result, RolloutError):
                server.suspect(str(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                done[server] = result
        if not done:
            kind = WeightUpdateFailed
            if all(isinstance(result, ServerLost) for result in results):
                kind = _AllLost
            elif all(isinstance(result, WrongWeights) for result in results):
                kind = WeightsMisfit
            elif any(isinstance(result, WeightsNotServed) for result in results):
                kind = _NotServed
            raise kind(f"no rollout server took weights {weights.version}: {self._reasons()}")
        return done

    async def _prepare(self, server: Server, weights: WeightVersion) -> float:
        if server.version == weights.version:
            return 0.0
        return await server.call(server.client.prepare(weights, self._presign))

    async def _commit(self, server: Server, weights: WeightVersion) -> float:
        if server.version == weights.version:
            return 0.0
        server.version, server.swapping = None, True
        server.swaps += 1
        try:
            async with server.pausing:
                paused = await server.call(server.client.commit(weights, self._presign))
        finally:
            server.swapping = False
        server.version = weights.version
        return paused

    async def _bring_up(self, server: Server) -> None:
        """One server to the current weights, beside the others' traffic."""
        async with server.updating:
            weights = self._target
            if weights is None or not server.proven:
                return
            try:
                await self._prepare(server, weights)
                await self._commit(server, weights)
            except Exception as error:  # signing is the caller's code: whatever it raises
                pause = self._options.resolve_interval * 2**server.failed_updates
                pause = min(pause, _LONGEST_UPDATE_PAUSE) * random.uniform(0.5, 1.0)
                server.failed_updates += 1
                server.update_not_before = asyncio.get_running_loop().time() + pause
                server.suspect(str(error))
                return
            server.failed_updates = 0
            server.become(State.READY)
        server.recheck.set()
        self._changed()

    # --- discovery and health ---

    async def _discover(self) -> None:
        """Keep the set of servers what the name resolves to."""
        options = self._options
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(options.probe_timeout):
                    listed = await loop.run_in_executor(
                        None, self._resolve, options.service, options.port
                    )
            except (OSError, UnicodeError) as error:
                # a name without any ready pod does not resolve either: what is known stays,
                # and its own probes decide
                self._unresolved = f"{options.service} does not resolve ({error})"
            else:
                self._unresolved = f"{options.service} has no address"
                await self._adopt(listed)
            await asyncio.sleep(options.resolve_interval * random.uniform(0.75, 1.25))

    async def _adopt(self, listed: frozenset[str]) -> None:
        options = self._options
        limit = options.first_in_flight_per_server or options.max_in_flight_per_server
        for address in listed - self._servers.keys():
            server = Server(address, self._client(address), limit)
            self._servers[address] = server
            self._watches[address] = self._spawn(self._watch(server))
        for address, server in list(self._servers.items()):
            server.listed = address in listed
            if not server.listed and not server.in_flight and not server.updating.locked():
                self._watches.pop(address).cancel()
                del self._servers[address]
                await server.client.close()
        self._changed()

    def _client(self, address: str) -> RolloutClient:
        options = self._options
        return RolloutClient(
            address,
            options.port,
            token=self._token,
            job_uid=options.job_uid,
            timeouts=Timeouts(
                probe=options.probe_timeout,
                control=options.control_timeout,
                prepare=options.prepare_timeout,
                request=options.request_timeout,
            ),
        )

    async def _watch(self, server: Server) -> None:
        silent = False
        while True:
            server.recheck.clear()
            try:
                await self._check(server)
                silent = False
            except Exception as error:  # a watch that ended would be a server lost for good
                if isinstance(error, NoAnswer) and not silent:
                    # a busy server may be late once
                    silent = True
                    server.suspect(str(error))
                else:
                    server.drop(str(error))
            server.checked = True
            self._changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    self._options.resolve_interval * random.uniform(0.75, 1.25)
                ):
                    await server.recheck.wait()

    async def _check(self, server: Server) -> None:
        """Prove the server and compare its weights; start an update when they differ."""
        pod_uid = await server.client.prove()
        if server.pod_uid not in (None, pod_uid):
            server.drop(f"the address belongs to pod {pod_uid} now")
        server.pod_uid = pod_uid
        await server.client.check_health()
        if server.usable and server.in_flight:
            if self._options.first_in_flight_per_server is not None:
                await self._follow_queue(server)
            return  # every answer states its weights, and only an idle engine tells them at once
        swaps = server.swaps
        try:
            version = await server.client.weight_version()
        except NoAnswer as error:
            if not server.in_flight:
                raise
            server.become(State.UNPROVEN, str(error))  # busy: what it has may still end well
            return
        if server.swapping or server.swaps != swaps:
            return  # what was read may be older than what the update did
        server.version = version
        target = self._target
        if target is not None and version == target.version:
            if not server.usable:
                # it may have fallen silent within an update, between its end and the resume
                async with server.pausing:
                    await server.client.resume_at_once()
            server.become(State.READY)
            return
        server.become(
            State.STALE,
            f"has weights {version}, none are set yet"
            if target is None
            else server.reason
            if server.failed_updates
            else f"has weights {version}, not {target.version}",
        )
        due = server.update_not_before <= asyncio.get_running_loop().time()
        if target is not None and due and not server.updating.locked():
            self._spawn(self._bring_up(server))

    async def _follow_queue(self, server: Server) -> None:
        """More or fewer prompts at once, by what waits in the server."""
        load = await server.client.load()
        if load is None:
            return
        most = self._options.max_in_flight_per_server
        limit = next_limit(server.limit, server.in_flight, load, most)
        if limit != server.limit:
            logger.info("rollout server %s: up to %d prompts, %s", server.address, limit, load)
        server.limit = limit

    # --- small change ---

    def _reasons(self) -> str:
        known = "; ".join(
            f"{address}: {self._servers[address].status().reason or 'ready'}"
            for address in sorted(self._servers)
        )
        return known or self._unresolved

    def _look_again(self) -> None:
        for server in self._servers.values():
            server.recheck.set()
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()
        self._dispatcher.pump()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._change.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
