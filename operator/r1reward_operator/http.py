# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server in a thread: bounded bodies, deadlines, quiet."""

import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

logger = logging.getLogger(__name__)

READ_SECONDS = 10.0
"""A client whose request takes longer than this in all is let go: were it the time of each byte,
a few clients that send one now and then would take all connections, probes' among them."""
CONNECTIONS = 64
"""Connections that are answered at once; further ones wait in the socket's queue."""


@dataclass(frozen=True)
class Request:
    """What a client asks."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What it gets."""

    code: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Answer]


class HttpServer:
    """Serves one handler until closed.

    Args:
        host: address to listen on.
        port: 0 for any free one.
        handler: must not wait for long; what it raises becomes a 500.
        body_limit: longer bodies are refused unread.
        read_seconds: how long a request may take to arrive.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler,
        body_limit: int = 0,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._server = _Server((host, port), _handler_class(handler, body_limit, read_seconds))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.server_address[1]

    def start(self) -> None:
        """Serves from now on."""
        self._thread.start()

    def close(self) -> None:
        """Ends serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(READ_SECONDS)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._free = threading.BoundedSemaphore(CONNECTIONS)

    def process_request(self, request, client_address) -> None:
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request, client_address) -> None:
        logger.debug("a connection of %s ended early", client_address, exc_info=True)


class _Arriving(io.RawIOBase):
    """What a client sends, until its time is over; then reading raises `TimeoutError`."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long to arrive")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def _handler_class(
    handler: Handler, body_limit: int, read_seconds: float
) -> type[BaseHTTPRequestHandler]:
    class _Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # one request a connection: none is held open

        def setup(self) -> None:
            super().setup()
            self.rfile.close()
            self.rfile = io.BufferedReader(_Arriving(self.connection, read_seconds))

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length", ""))
            except ValueError:
                self._send(Answer(411, b"send a Content-Length\n"))
                return
            if not 0 <= length <= body_limit:
                self._send(Answer(413, f"the body is limited to {body_limit} bytes\n".encode()))
                return
            self._answer(self.rfile.read(length))

        def log_message(self, format: str, *args: object) -> None:
            logger.debug("%s %s", self.address_string(), format % args)

        def _answer(self, body: bytes) -> None:
            headers = {k.lower(): v for k, v in self.headers.items()}
            try:
                answer = handler(Request(self.command, self.path, headers, body))
            except Exception:
                logger.exception("answering %s %s failed", self.command, self.path)
                answer = Answer(500, b"internal error\n")
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            self.connection.settimeout(READ_SECONDS)
            self.send_response(answer.code)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

    return _Handler
