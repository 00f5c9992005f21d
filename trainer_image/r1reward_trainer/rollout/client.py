# SPDX-License-Identifier: Apache-2.0
"""One rollout server over HTTP: who it is, which weights it has, and what it answers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from json import dumps, loads
from typing import Any

import httpcore

from r1reward_trainer.logs.pod import PATH as LOGS_PATH
from r1reward_trainer.logs.pod import PodLog
from r1reward_trainer.rollout.connection import Identity, ProvenBackend
from r1reward_trainer.rollout.queue import Load, read_load
from r1reward_trainer.rollout.types import (
    GenerateRequest,
    GenerateResult,
    IdentityRefused,
    NotReached,
    RequestRefused,
    ServerLost,
    ServerUnavailable,
    StaleWeights,
    WeightsNotServed,
    WeightVersion,
    WrongWeights,
)
from r1reward_trainer.rollout.wire import (
    generate_body,
    parse_generated,
    update_info,
)

logger = logging.getLogger(__name__)

_REFUSED_STATUS = frozenset({400, 413, 415, 422})
_ERROR_TEXT = 500
_KEEP_ALIVE_EXPIRY = 30.0  # the server keeps idle connections for longer
_POLL = (0.02, 0.5)
_ABANDON = {"version": "abandoned", "files": []}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, each for a whole exchange: ``probe`` for what a live server answers at once,
    ``control`` for one call of an update (a pause waits for requests in flight), ``prepare``
    for fetching and verifying weights, ``request`` for one prompt."""

    probe: float = 10.0
    control: float = 300.0
    prepare: float = 1800.0
    request: float = 600.0


class RolloutClient:
    """Talks to one address; not thread-safe, for one event loop.

    Neither the token nor a prompt is sent on a connection before the other end has proved, over
    a nonce, that it holds the same token, belongs to the job and is the pod that was probed: a
    pod's address may be another pod's by now. Pods are reached directly, whatever proxy is set.
    """

    def __init__(
        self, address: str, port: int, *, token: str, job_uid: str, timeouts: Timeouts
    ) -> None:
        self.address = address
        self.pod_uid: str | None = None
        self._host = f"[{address}]" if ":" in address else address
        self._port = port
        self._token = token
        self._timeouts = timeouts
        self._identity = Identity(token, job_uid, timeouts.probe)
        self._pool = self._connections(max_connections=None)

    def _connections(self, max_connections: int | None) -> httpcore.AsyncConnectionPool:
        """A pool of connections that are all proven to be to the pod that is known."""
        return httpcore.AsyncConnectionPool(
            max_connections=max_connections,
            keepalive_expiry=_KEEP_ALIVE_EXPIRY,
            network_backend=ProvenBackend(self._identity, self._accept),
        )

    def _accept(self, pod_uid: str) -> None:
        if self.pod_uid is None:
            self.pod_uid = pod_uid
        if pod_uid != self.pod_uid:
            raise IdentityRefused(f"{self.address} is another pod now ({pod_uid})")

    async def close(self) -> None:
        """Close pooled connections."""
        await self._pool.aclose()

    # --- identity and health ---

    async def prove(self) -> str:
        """The pod UID that the address proves now; raises IdentityRefused or ServerUnavailable.

        From here on connections must be to this pod.
        """
        seconds = self._timeouts.probe
        proven: list[str] = []
        with self._network_errors("/r1/identity", seconds):
            stream = await ProvenBackend(self._identity, proven.append).connect_tcp(
                self.address, self._port, seconds
            )
            await stream.aclose()
        self.pod_uid = proven[0]
        return self.pod_uid

    async def check_health(self) -> None:
        """Raises ServerUnavailable when the engine behind the server is dead."""
        await self._send(self._pool, "GET", "/health", self._timeouts.probe)

    async def load(self) -> Load | None:
        """What runs and waits in the server; None when it does not tell."""
        try:
            content = await self._exchange(self._pool, "GET", "/metrics", self._timeouts.probe)
        except (ServerUnavailable, RequestRefused):
            return None
        return read_load(content.decode(errors="replace"))

    async def log(self) -> PodLog:
        """The server's last output; raises ServerUnavailable, or ValueError when it is none."""
        async with self._control() as http:
            return PodLog.parse(await self._send(http, "GET", LOGS_PATH, self._timeouts.probe))

    async def model_folder(self) -> str:
        """The folder that the server was started with; raises ServerUnavailable."""
        async with self._control() as http:
            answer = await self._send(http, "GET", "/v1/models", self._timeouts.probe)
        try:
            return str(answer["data"][0]["root"])
        except (KeyError, IndexError, TypeError):
            raise ServerUnavailable(f"{self.address} names no model") from None

    @asynccontextmanager
    async def _control(self) -> AsyncIterator[httpcore.AsyncConnectionPool]:
        """A connection of its own: servers drop a connection after an error."""
        async with self._connections(max_connections=1) as http:
            yield http

    # --- weights ---

    async def weight_version(self) -> str:
        """The version label of the weights that the server answers with.

        The engine answers between two of its steps: a busy one may be late.
        """
        return await self._weight_version(self._timeouts.probe)

    async def _weight_version(self, seconds: float) -> str:
        async with self._control() as http:
            answer = await self._send(http, "GET", "/weight_info", seconds)
        return str(answer.get("weight_version"))

    async def prepare(self, weights: WeightVersion, presign: Callable[[str], str]) -> float:
        """Let the server fetch and verify the weights while it serves; seconds it took.

        Raises ServerUnavailable with the server's reason when it refuses them: WrongWeights when
        they are of another model than it serves, WeightsNotServed when it could not fetch them.
        """
        begin = time.monotonic()
        seconds = self._timeouts.prepare
        try:
            async with asyncio.timeout(seconds):
                status = await self._prepared(await _signed(weights, presign))
        except TimeoutError:
            raise ServerUnavailable(
                f"{self.address} has not prepared {weights.version} in {seconds:g} s"
            ) from None
        refused = [rank for rank in status if rank["state"] != "ready"]
        if refused:
            reason = refused[0]["error"] or f"its preparation is {refused[0]['state']}"
            kind = ServerUnavailable
            if refused[0].get("misfit"):
                kind = WrongWeights
            elif refused[0].get("notServed"):
                kind = WeightsNotServed
            raise kind(f"{self.address} refuses {weights.version}: {reason}")
        return time.monotonic() - begin

    async def _prepared(self, update: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The final state on each of the server's ranks."""
        pause, longest = _POLL
        async with self._control() as http:
            status = await self._prepare_call(http, "r1_prepare_weights", dumps(update))
            while any(rank["state"] == "preparing" for rank in status):
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, longest)
                status = await self._prepare_call(http, "r1_prepare_status", status[0]["key"])
        return status

    async def _prepare_call(
        self, http: httpcore.AsyncConnectionPool, method: str, argument: str
    ) -> list[dict[str, Any]]:
        answer = await self._send(
            http,
            "POST",
            "/collective_rpc",
            self._timeouts.control,
            json={"method": method, "args": [argument]},
        )
        results = answer.get("results")
        if not isinstance(results, list) or not results:
            raise ServerUnavailable(f"{self.address} has no {method}: not a rollout image?")
        return results

    async def commit(self, weights: WeightVersion, presign: Callable[[str], str]) -> float:
        """Swap to the prepared weights; seconds from pause to resume.

        The version label is set last, when the model is whole and no cache holds anything of
        the old weights: the pause clears the caches, and nothing is scheduled until the resume.
        On any error the server resumes with its old weights (or has ended itself).
        """
        begin = time.monotonic()
        control = self._timeouts.control
        try:
            async with self._control() as http:
                await self._send(http, "POST", "/pause?mode=wait", control)
                await self._send(http, "POST", "/reset_encoder_cache", control)
                cleared = await self._send(http, "POST", "/reset_prefix_cache", control)
                if cleared.get("success") is not True:
                    raise ServerUnavailable(f"{self.address} did not clear its prefix cache")
                await self._start_update()
                info = {"update_info": await _signed(weights, presign)}
                await self._send(http, "POST", "/update_weights", control, json=info)
                label = {"weight_version": weights.version}
                await self._send(http, "POST", "/finish_weight_update", control, json=label)
        finally:
            await self.resume()
        paused = time.monotonic() - begin
        if (version := await self._weight_version(control)) != weights.version:
            raise StaleWeights(f"{self.address} has weights {version} after an update")
        return paused

    async def _start_update(self) -> None:
        """Begin a session; one that a client left open is ended first, by an invalid update."""
        control = self._timeouts.control
        try:
            async with self._control() as http:
                await self._send(http, "POST", "/start_weight_update", control)
        except ServerUnavailable as error:
            logger.warning("%s: ending an update that was left open (%s)", self.address, error)
            try:
                async with self._control() as http:
                    await self._send(
                        http, "POST", "/update_weights", control, json={"update_info": _ABANDON}
                    )
            except ServerUnavailable:
                pass
            async with self._control() as http:
                await self._send(http, "POST", "/start_weight_update", control)

    async def resume(self) -> None:
        """Let the server schedule again; harmless when it is not paused."""
        await self._resume(self._timeouts.control)

    async def resume_at_once(self) -> None:
        """As `resume`, for a server that should be idle."""
        await self._resume(self._timeouts.probe)

    async def _resume(self, seconds: float) -> None:
        async with self._control() as http:
            await self._send(http, "POST", "/resume", seconds)

    # --- generation ---

    async def generate(self, request: GenerateRequest, version: str) -> GenerateResult:
        """Answer one prompt with the weights ``version``.

        Raises ServerUnavailable (StaleWeights, IdentityRefused) when another server may do
        better, RequestRefused or PromptMismatch when none would.
        """
        body = generate_body(request)
        try:
            answer = await self._generate(body)
        except _ConnectionLost as lost:
            # a kept connection may have been closed just then
            try:
                answer = await self._generate(body)
            except NotReached as error:
                raise lost from error  # the prompt was on the server when it went
        return parse_generated(request, answer, server=self.address, version=version)

    async def _generate(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._send(
            self._pool, "POST", "/inference/v1/generate", self._timeouts.request, json=body
        )

    # --- transport ---

    async def _send(
        self,
        http: httpcore.AsyncConnectionPool,
        method: str,
        path: str,
        seconds: float,
        *,
        json: Any = None,
    ) -> Mapping[str, Any]:
        """One exchange; the JSON object of a 2xx answer ({} if it is empty)."""
        return _json_object(await self._exchange(http, method, path, seconds, json=json), path)

    async def _exchange(
        self,
        http: httpcore.AsyncConnectionPool,
        method: str,
        path: str,
        seconds: float,
        *,
        json: Any = None,
    ) -> bytes:
        """One exchange under a deadline; the content of a 2xx answer."""
        content = None if json is None else dumps(json).encode()
        headers = [("Host", self._host), ("Authorization", f"Bearer {self._token}")]
        if content is not None:
            headers += [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(content))),
            ]
        with self._network_errors(path, seconds):
            async with asyncio.timeout(seconds):
                response = await http.request(
                    method,
                    f"http://{self._host}:{self._port}{path}",
                    headers=headers,
                    content=content,
                    extensions={"timeout": {"connect": self._timeouts.probe}},
                )
        if 200 <= response.status < 300:
            return response.content
        told = response.content[:_ERROR_TEXT].decode(errors="replace")
        text = f"{self.address}{path}: HTTP {response.status} {told}"
        if response.status in _REFUSED_STATUS:
            raise RequestRefused(text)
        raise ServerUnavailable(text)

    @contextmanager
    def _network_errors(self, path: str, seconds: float) -> Iterator[None]:
        """Turns the network's errors into NoAnswer or the loss of a connection."""
        try:
            yield
        except (TimeoutError, httpcore.TimeoutException):
            raise NoAnswer(f"{self.address}{path}: no answer in {seconds:g} s") from None
        except httpcore.ConnectError as error:
            raise NotReached(f"{self.address}{path}: ConnectError {error}") from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            text = f"{self.address}{path}: {type(error).__name__} {error}"
            raise _ConnectionLost(text) from error


class NoAnswer(ServerLost):
    """The server did not answer in time: it is frozen, or only busy."""


class _ConnectionLost(ServerLost):
    """The connection broke."""


async def _signed(weights: WeightVersion, presign: Callable[[str], str]) -> dict[str, Any]:
    """The update with fresh URLs; signing is the caller's code and may block."""
    return await asyncio.to_thread(update_info, weights, presign)


def _json_object(content: bytes, path: str) -> Mapping[str, Any]:
    if not content:
        return {}
    try:
        value = loads(content)
    except ValueError as error:
        raise ServerUnavailable(f"{path}: the answer is not JSON") from error
    return value if isinstance(value, dict) else {"value": value}
