# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server that speaks a rollout server's protocol without a model.

For the faults that cannot be provoked in vLLM: a server that freezes, an address that another
pod took over, a restart within one request. What a prompt is answered with names the weights.
"""

import asyncio
import hmac
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from r1reward_rollout.middleware import Credentials
from r1reward_rollout.update_info import parse_update_info

T = TypeVar("T")

TOKEN = "the-token-of-the-attempt"
JOB_UID = "job-1"
BASE = "default"


class Loop:
    """An event loop in a thread, for the servers of a test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(10)

    def close(self) -> None:
        self.run(self._cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _cancel(self) -> None:
        """Ends what a frozen server still holds."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def event_loop() -> Iterator[Loop]:
    loop = Loop()
    try:
        yield loop
    finally:
        loop.close()


@dataclass
class ProtocolServer:
    """One server at ``address``; ``calls`` has the path of every request that had the token.

    Attributes:
        refuses: versions that it does not prepare, with the reason.
        misfits: as `refuses`, because they are of another model.
        unserved: as `refuses`, because the store does not serve them.
        broken: whether a path answers 500.
        observer: is told of every call.
        frozen: connections are accepted and nothing is answered, nor what it was just doing.
        silent: paths that are not answered.
        probes: how often it was asked for its identity.
        generated: prompts that were answered, in order.
        most_in_flight: the most prompts it ever held.
        capacity: how many prompts /metrics says that it runs at once; None has no /metrics.
        refuses_token: it answers 401 to everybody.
        unauthorised: paths that were asked for without the token.
    """

    loop: Loop
    address: str
    port: int = 0
    token: str = TOKEN
    job_uid: str = JOB_UID
    pod_uid: str = "pod"
    version: str = BASE
    refuses: dict[str, str] = field(default_factory=dict)
    misfits: dict[str, str] = field(default_factory=dict)
    unserved: dict[str, str] = field(default_factory=dict)
    broken: Callable[[str], bool] = lambda path: False
    observer: Callable[[str], None] = lambda path: None
    frozen: bool = False
    silent: set[str] = field(default_factory=set)
    refuses_token: bool = False
    probes: int = 0
    calls: list[str] = field(default_factory=list)
    unauthorised: list[str] = field(default_factory=list)
    generated: list[tuple[int, ...]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    capacity: int | None = None

    def __post_init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self._prepared: dict[str, dict[str, Any]] = {}
        self._updating: str | None = None
        self._running = asyncio.Event()
        self._running.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    # --- life ---

    def start(self) -> "ProtocolServer":
        self._server = self.loop.run(asyncio.start_server(self._serve, self.address, self.port))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def kill(self) -> None:
        """Reset every connection and refuse new ones."""

        async def end() -> None:
            assert self._server is not None
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()

        if self._server is not None:
            self.loop.run(end())
            self._server = None

    def restart(self) -> None:
        """As the kubelet does: the same pod with the base weights."""
        self.kill()
        self.version, self._prepared, self._updating = BASE, {}, None
        self.loop.loop.call_soon_threadsafe(self._running.set)
        self.start()

    def crash(self) -> None:
        """From within a call: every connection is reset, and it is back with the base weights."""
        self.version, self._prepared, self._updating = BASE, {}, None
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Answer no prompt until :meth:`release`."""
        self.loop.loop.call_soon_threadsafe(self.gate.clear)

    def release(self) -> None:
        self.loop.loop.call_soon_threadsafe(self.gate.set)

    # --- HTTP ---

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if self.frozen:
                    await asyncio.Event().wait()
                status, answer = await self._answer(method, target, headers, body)
                if self.frozen:
                    await asyncio.Event().wait()
                data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                writer.write(
                    f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(data)}\r\n\r\n".encode()
                    + data
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        path = urlsplit(target).path
        credentials = Credentials(self.token, self.job_uid, self.pod_uid)
        if path == "/r1/identity":
            self.probes += 1
            nonce = json.loads(body)["nonce"]
            return 200, {"podUid": self.pod_uid, "proof": credentials.proof(nonce)}
        if path == "/health":
            return 200, {}
        if path == "/metrics":
            return (404, {}) if self.capacity is None else (200, self._metrics(self.capacity))
        given = headers.get("authorization", "")
        if self.refuses_token or not hmac.compare_digest(given, f"Bearer {self.token}"):
            self.unauthorised.append(path)
            return 401, {"error": "unauthorized"}
        self.calls.append(path)
        self.observer(path)
        if path in self.silent:
            await asyncio.Event().wait()
        if self.broken(path):
            return 500, {"error": "broken"}
        return await self._route(path, json.loads(body) if body else {})

    def _metrics(self, capacity: int) -> str:
        running = min(self.in_flight, capacity)
        labels = '{engine="0",model_name="/models/base"}'
        return (
            "# TYPE vllm:num_requests_running gauge\n"
            f"vllm:num_requests_running{labels} {running:.1f}\n"
            "# TYPE vllm:num_requests_waiting gauge\n"
            f"vllm:num_requests_waiting{labels} {self.in_flight - running:.1f}\n"
        )

    async def _route(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/weight_info":
            return 200, {"weight_version": self.version}
        if path == "/r1/logs":
            return 200, {"pod": self.pod_uid, "log": f"weights {self.version}\n"}
        if path == "/collective_rpc":
            return 200, {"results": [self._prepare(body["method"], body["args"][0])]}
        if path == "/inference/v1/generate":
            return await self._generate(body)
        if path == "/pause":
            self._running.clear()
        elif path == "/resume":
            self._running.set()
        elif path == "/reset_prefix_cache":
            return 200, {"success": True}
        elif path == "/update_weights":
            info = parse_update_info(body["update_info"])
            if self._prepared.get(info.key, {}).get("state") != "ready" or self._running.is_set():
                return 500, {"error": "not prepared, or not paused"}
            self._updating = info.version
        elif path == "/finish_weight_update":
            if self._updating is None or self._updating != body["weight_version"]:
                return 500, {"error": "nothing to finish"}
            self.version, self._updating = self._updating, None
        return 200, {}

    def _prepare(self, method: str, argument: str) -> dict[str, Any]:
        if method == "r1_prepare_weights":
            info = parse_update_info(json.loads(argument))
            version = info.version
            misfit, unserved = self.misfits.get(version), self.unserved.get(version)
            error = misfit or unserved or self.refuses.get(version)
            self._prepared[info.key] = {
                "key": info.key,
                "state": "failed" if error else "ready",
                "error": error,
                "misfit": misfit is not None,
                "notServed": unserved is not None,
            }
            return {"key": info.key, "state": "preparing", "error": None}
        return self._prepared[argument]

    async def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
            await self._running.wait()
        finally:
            self.in_flight -= 1
        if body["token_ids"] == [0]:
            return 400, {"error": "token 0 is refused"}
        self.generated.append(tuple(body["token_ids"]))
        tokens = self.sampled(body)
        content = log_probs(tokens, body, -0.5)
        return 200, {
            "prompt_token_ids": body["token_ids"],
            "choices": [
                {
                    "index": index,
                    "token_ids": tokens,
                    "logprobs": {"content": content},
                    "finish_reason": "stop",
                    "weight_versions": [{"version": self.version, "start": 0, "end": len(tokens)}],
                }
                for index in range(body["sampling_params"]["n"])
            ],
        }

    def sampled(self, body: dict[str, Any]) -> list[int]:
        """The answer to a prompt."""
        return [7, 8]


def log_probs(tokens: list[int], body: dict[str, Any], each: float) -> list[dict[str, Any]]:
    """As a server answers them: of a sampled token ``each``, of other rivals two less."""
    rivals = body["sampling_params"].get("logprob_token_ids", [])
    return [
        {
            "token_id": token,
            "logprob": each,
            "top_logprobs": [{"token_id": token, "logprob": each}]
            + [{"token_id": r, "logprob": each - 2} for r in rivals if r != token],
        }
        for token in tokens
    ]
