# SPDX-License-Identifier: Apache-2.0
"""Servers that trickle or flood, which no HTTP library would play."""

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def raw_server(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does to each connection whatever a test wants."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            with suppress(OSError):  # the client has gone
                behave(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def trickled(beginning: bytes) -> Callable[[socket.socket], None]:
    """Sends a beginning and then a byte at a time for a minute: no single read of it is slow."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(beginning)
        for _ in range(1200):
            connection.sendall(b"x")
            time.sleep(0.05)

    return behave


def flooded(connection: socket.socket) -> None:
    """Sends a body without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * (1 << 20))


STARTS = {
    "nothing": b"",
    "headers": b"HTTP/1.1 200 OK\r\nX-Slow: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
    "refusal": b"HTTP/1.1 422 No\r\nContent-Length: 9999\r\n\r\n",
}
