# SPDX-License-Identifier: Apache-2.0
"""How the services listen: verifier and scoring front alike."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 64 << 10
"""Of a request's first line and headers, which are read before the token is known."""
HEADER_SECONDS = 30.0
"""Until they are whole. Without a limit connections could be held by who has no token."""
_SECONDS_TO_END = 5
"""Of the grace period, for what comes after the last answer."""


class Listening(H11Protocol):
    """A connection that is closed when the headers of a request are too long in coming."""

    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio calls it."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        super().data_received(data)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._forget_headers()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget_headers()
        elif self._headers_due is None:
            self._headers_due = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _forget_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


def listening(host: str, port: int, grace_period_seconds: int) -> dict[str, Any]:
    """Options of uvicorn.

    Args:
        host, port: address.
        grace_period_seconds: between SIGTERM and SIGKILL; requests in flight are finished in it.
    """
    return {
        "host": host,
        "port": port,
        # By default what is installed: httptools, where it is there, has no limit on headers.
        "http": Listening,
        "h11_max_incomplete_event_size": HEADER_BYTES,
        "log_level": "warning",
        "access_log": False,
        "timeout_graceful_shutdown": max(1, grace_period_seconds - _SECONDS_TO_END),
    }
