# SPDX-License-Identifier: Apache-2.0
"""A small S3 server on loopback whose faults a test chooses."""

import hashlib
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass
class Faults:
    """What happens to the next requests, first in first out; then all goes well.

    `status:<n>` answers with it and does nothing, `code:<n>:<code>` likewise with an error
    document, `refused:<code>` deletes nothing and says so of one object in an answer 200, `drop`
    does nothing and hangs up, `lost` does what was asked and hangs up without
    an answer.

    Attributes:
        requests: methods, as they came.
        objects: by path.
        ignored_headers: conditions that the server does not know.
        etags: whether answers carry them.
        until: every request is answered 503 until this is true.
    """

    planned: deque[str] = field(default_factory=deque)
    requests: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    ignored_headers: set[str] = field(default_factory=set)
    etags: bool = True
    until: Callable[[], bool] = lambda: True


def etag(data: bytes) -> str:
    """As S3 makes it."""
    return hashlib.md5(data).hexdigest()


def _listing(objects: dict[str, bytes], bucket: str) -> bytes:
    contents = "".join(
        f"<Contents><Key>{key.removeprefix(bucket + '/')}</Key><Size>{len(data)}</Size>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for key, data in sorted(objects.items())
    )
    contents += f"<Name>{bucket}</Name><IsTruncated>false</IsTruncated>"
    return f"<ListBucketResult {_NAMESPACE}>{contents}</ListBucketResult>".encode()


def _handler(faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._handle("GET")

        def do_PUT(self) -> None:
            self._handle("PUT")

        def do_DELETE(self) -> None:
            self._handle("DELETE")

        def do_POST(self) -> None:
            self._handle("POST")

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

        def _handle(self, method: str) -> None:
            faults.requests.append(method)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.planned.popleft() if faults.planned else ""
            if not faults.until():
                fault = "status:503"
            if fault == "drop":
                self.close_connection = True
                return
            if fault.startswith("status:"):
                self._answer(int(fault.removeprefix("status:")), b"")
                return
            if fault.startswith("code:"):
                _, code_status, code = fault.split(":")
                self._answer(int(code_status), f"<Error><Code>{code}</Code></Error>".encode())
                return
            if fault.startswith("refused:"):
                refused = (
                    f"<Error><Code>{fault.removeprefix('refused:')}</Code><Key>a</Key></Error>"
                )
                self._answer(200, f"<DeleteResult {_NAMESPACE}>{refused}</DeleteResult>".encode())
                return
            status, content = self._act(method, self.path.split("?")[0], body)
            if fault == "lost":
                self.close_connection = True
                return
            self._answer(status, content)

        def _act(self, method: str, key: str, body: bytes) -> tuple[int, bytes]:
            found = faults.objects.get(key)
            if method == "GET" and "list-type=2" in self.path:
                return 200, _listing(faults.objects, key)
            if method == "GET":
                return (404, b"") if found is None else (200, found)
            if method == "DELETE":
                faults.objects.pop(key, None)
                return 204, b""
            if method == "POST":
                return 200, f"<DeleteResult {_NAMESPACE}></DeleteResult>".encode()
            if self._condition("If-None-Match") == "*" and found is not None:
                return 412, b""
            expected = self._condition("If-Match")
            if expected and (found is None or expected.strip('"') != etag(found)):
                return 412, b""
            faults.objects[key] = body
            return 200, b""

        def _condition(self, header: str) -> str | None:
            return None if header in faults.ignored_headers else self.headers.get(header)

        def _answer(self, status: int, content: bytes) -> None:
            stored = faults.objects.get(self.path.split("?")[0], b"")
            self.send_response(status)
            if faults.etags:
                self.send_header("ETag", f'"{etag(stored)}"')
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


@contextmanager
def serve(faults: Faults, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The server's URL while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(faults))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
