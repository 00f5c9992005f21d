# SPDX-License-Identifier: Apache-2.0
"""A chat service on loopback that fails as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """How one request is answered.

    Attributes:
        text: of the assistant; None: `body` is sent instead.
        status, headers, body: of the HTTP answer.
        delay: seconds before it.
        hang_up: close the connection without an answer.
        trickle: seconds between the bytes of an answer that never ends.
    """

    text: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    delay: float = 0.0
    hang_up: bool = False
    trickle: float = 0.0


Rule = Callable[[int, dict[str, Any]], Reply]
"""Reply by the request's number, from 1, and its body."""


@dataclass
class FaultyTeacher:
    """The running service.

    Attributes:
        url: base URL, ending in /v1.
        requests: bodies received, in order.
        keys: Authorization headers received.
        most_in_flight: most requests that were being answered at once.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0


@contextmanager
def serve(rule: Rule) -> Iterator[FaultyTeacher]:
    """Serves on a free port of loopback."""
    state = FaultyTeacher()
    lock = threading.Lock()
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.requests.append(body)
                state.keys.append(self.headers.get("Authorization"))
                state.in_flight += 1
                state.most_in_flight = max(state.most_in_flight, state.in_flight)
                number = len(state.requests)
            try:
                self._answer(rule(number, body))
            finally:
                with lock:
                    state.in_flight -= 1

        def _answer(self, reply: Reply) -> None:
            closing.wait(reply.delay)
            if reply.hang_up:
                self.close_connection = True
                return
            data = reply.body
            if reply.text is not None:
                data = json.dumps({"choices": [{"message": {"content": reply.text}}]}).encode()
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                length = 1 << 40 if reply.trickle else len(data)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(data)
                while reply.trickle and not closing.wait(reply.trickle):
                    self.wfile.write(b" ")
            except OSError:
                self.close_connection = True  # the client did not wait

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # many callers at once are not reset

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
