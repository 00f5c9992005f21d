# SPDX-License-Identifier: Apache-2.0
"""How the services listen: verifier and scoring front alike."""

from typing import Any

HEADER_BYTES = 64 << 10
"""Of a request's first line and headers, which are read before the token is known."""
_SECONDS_TO_END = 5
"""Of the grace period, for what comes after the last answer."""


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
        "http": "h11",
        "h11_max_incomplete_event_size": HEADER_BYTES,
        "log_level": "warning",
        "access_log": False,
        "timeout_graceful_shutdown": max(1, grace_period_seconds - _SECONDS_TO_END),
    }
