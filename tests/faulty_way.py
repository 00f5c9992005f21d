# SPDX-License-Identifier: Apache-2.0
"""A proxy on the way to an S3 server: it shows faults that a whole server never has."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Fault(Enum):
    """What becomes of a request.

    `AWAY`: it is answered 503 and goes no further. `LOST`: it is done, and the connection is cut
    before the answer. `CUT`: the same after half of the answer.
    """

    AWAY = auto()
    LOST = auto()
    CUT = auto()


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        method: of HTTP.
        key: `/bucket/key`.
        query: names and values.
    """

    method: str
    key: str
    query: dict[str, str]


@dataclass
class FaultyWay:
    """What the proxy does, and what it has seen.

    Attributes:
        url: where it listens.
        rule: asked about every request; None lets it pass.
        requests: as they came, faulty ones too.
    """

    url: str = ""
    rule: Callable[[Request], Fault | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)


@contextmanager
def faulty_way(server: str) -> Iterator[FaultyWay]:
    """A way to the server at a URL, while the context lasts."""
    way = FaultyWay()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(way, urlsplit(server).netloc))
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    way.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        yield way
    finally:
        proxy.shutdown()
        proxy.server_close()


def _handler(way: FaultyWay, server: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

        def _pass(self) -> None:
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
            request = Request(self.command, unquote(parts.path), query)
            way.requests.append(request)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = way.rule(request)
            if fault is Fault.AWAY:
                self._answer(503, {"Content-Type": "text/plain"}, b"away", 4)
                return
            try:
                status, headers, content = self._forward(body)
            except (OSError, http.client.HTTPException):  # the server hung up: so does the way
                self.close_connection = True
                return
            if fault is Fault.LOST:
                self.close_connection = True
                return
            whole = int(headers.get("Content-Length") or len(content))
            if fault is Fault.CUT:
                self.close_connection = True
                content = content[: len(content) // 2]
            self._answer(status, headers, content, whole)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

        def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(server, timeout=30)
            try:
                # The Host stays the client's: it is signed.
                connection.putrequest(self.command, self.path, True, True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes, length: int):
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

    return Handler
