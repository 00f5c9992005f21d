# SPDX-License-Identifier: Apache-2.0
"""A way that is slow, and one that stands still."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import InfrastructureError
from r1reward_trainer.storage import transport
from r1reward_trainer.storage.patience import Patience
from r1reward_trainer.storage.s3 import Store
from tests.unit.storage.loopback import CREDENTIALS

ONCE = Patience(seconds=0)


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats every connection so; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_slow_way_takes_a_large_body_as_long_as_it_moves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.5)
    size = 24 * 2**20

    def read_slowly(connection: socket.socket) -> None:
        received = 0
        while received < size:
            received += len(connection.recv(2**18))
            time.sleep(0.02)
        connection.sendall(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n")

    with serving(read_slowly) as url:
        begin = time.monotonic()
        store = Store("s3://bucket", {**CREDENTIALS, "AWS_ENDPOINT_URL": url}, ONCE)
        store.put("a", bytes(size))
        assert time.monotonic() - begin > 0.5


def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "READ_SECONDS", 0.5)
    gone = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.recv(2**16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            while not gone.wait(0.05):
                connection.sendall(b"x")
        except OSError:
            gone.set()

    with serving(trickle) as url:
        store = Store("s3://bucket", {**CREDENTIALS, "AWS_ENDPOINT_URL": url}, ONCE)
        with pytest.raises(InfrastructureError) as caught:
            store.get("a")
        assert gone.wait(10)
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE


def say_nothing(connection: socket.socket) -> None:
    """Holds a connection for longer than any client of these tests waits."""
    threading.Event().wait(20)


@pytest.mark.parametrize("call", ["get", "put", "list", "put_if"])
def test_a_server_that_accepts_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, call: str
):
    monkeypatch.setattr(transport, "READ_SECONDS", 0.3)
    with serving(say_nothing) as url:
        store = Store("s3://bucket", {**CREDENTIALS, "AWS_ENDPOINT_URL": url}, ONCE)
        calls = {
            "get": lambda: store.get("a"),
            "put": lambda: store.put("a", b"content"),
            "list": lambda: list(store.list()),
            "put_if": lambda: store.put_if("a", b"content", None),
        }
        with pytest.raises(InfrastructureError) as caught:
            calls[call]()
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE


def test_a_workload_identity_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "READ_SECONDS", 0.3)
    with serving(say_nothing) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        store = Store("s3://bucket", {"AWS_ENDPOINT_URL": url}, ONCE)
        with pytest.raises(InfrastructureError) as caught:
            store.get("a")
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
