# SPDX-License-Identifier: Apache-2.0
"""A client that sends a byte now and then, so that no single read of it is slow."""

import contextlib
import socket
import threading

_PAUSE_SECONDS = 0.05


def drip_until_let_go(host: str, port: int, begun: bytes) -> bytes:
    """What the server answers until it closes the connection.

    Args:
        host, port: of the server.
        begun: sent at once.

    Raises:
        TimeoutError: when it neither answers nor closes for 20 s.
    """
    gone, answer = threading.Event(), bytearray()
    with socket.create_connection((host, port), timeout=20) as client:
        client.sendall(begun)

        def drip() -> None:
            while not gone.wait(_PAUSE_SECONDS):
                with contextlib.suppress(OSError):
                    client.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with contextlib.suppress(ConnectionResetError):
                while piece := client.recv(1000):
                    answer += piece
        finally:
            gone.set()
            dripping.join()
    return bytes(answer)
