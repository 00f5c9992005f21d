# SPDX-License-Identifier: Apache-2.0
"""A judge on the loopback interface that does whatever a test wants."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the stub answers: `text` as a chat completion, or `raw` bytes as they are.

    With `trickle` one byte comes at a time, that many seconds apart, after the headers or with
    them: no single read of it is slow."""

    text: str = "1"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    hang: bool = False
    trickle: float = 0.0
    trickle_headers: bool = False


Behaviour = Callable[[str, int], Reply]


def fenced(question: str) -> str:
    """What stands between the question's fences."""
    found = re.search(r"^(REASONING-\w+)\n(.*)^\1$", question, re.MULTILINE | re.DOTALL)
    assert found
    return found[2]


def honest(question: str, _: int) -> Reply:
    """Judges by rule: the last response named in the reasoning is what it concludes."""
    verdict = re.findall(r"concludes that Response (\d)", question)[0]
    named = re.findall(r"Response (\d)", fenced(question))
    return Reply("1" if named and named[-1] == verdict else "0")


def with_context(tokens: int) -> Behaviour:
    """Honest, by a tokenizer that makes a token of each byte; refuses what is longer than this."""

    def answers(question: str, nth: int) -> Reply:
        return Reply(status=400) if len(question.encode()) > tokens else honest(question, nth)

    return answers


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # hundreds connect at once
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that has gone is no fault of the stub."""


class JudgeStub:
    """Serves `/v1/chat/completions` and `/v1/models` on a port of its own."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = honest
        self.models = ["the-judge", "another"]
        self.calls: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._let_go = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                listing = {"data": [{"id": model} for model in stub.models]}
                self._send(Reply(raw=json.dumps(listing).encode()))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                reply = stub._enter(body, self.headers.get("authorization"))
                if reply.hang:
                    stub._let_go.wait()
                stub._leave()
                self._send(reply)

            def _send(self, reply: Reply) -> None:
                message = {"choices": [{"message": {"role": "assistant", "content": reply.text}}]}
                body = json.dumps(message).encode() if reply.raw is None else reply.raw
                try:
                    if reply.trickle_headers:
                        self._drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100_000, reply)
                    self.send_response(reply.status)
                    for name, value in {**reply.headers, "Content-Length": len(body)}.items():
                        self.send_header(name, str(value))
                    self.end_headers()
                    self._drip(body, reply)
                except OSError:  # the caller has gone
                    self.close_connection = True

            def _drip(self, data: bytes, reply: Reply) -> None:
                if not reply.trickle:
                    self.wfile.write(data)
                    return
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    if stub._let_go.wait(reply.trickle):
                        raise OSError

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def questions(self) -> list[str]:
        """The user messages that came, in order of arrival."""
        return [call["messages"][0]["content"] for call in self.calls]

    def let_go(self) -> None:
        """Ends all hanging calls."""
        self._let_go.set()

    def close(self) -> None:
        """Stops listening."""
        self.let_go()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _enter(self, body: dict[str, Any], key: str | None) -> Reply:
        with self._lock:
            self.calls.append(body)
            self.keys.append(key)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            nth = len(self.calls)
        return self.behaviour(body["messages"][0]["content"], nth)

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1
