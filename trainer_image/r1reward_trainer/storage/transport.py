# SPDX-License-Identifier: Apache-2.0
"""HTTP to the store: whom it trusts, and a deadline for everything that goes over the wire."""

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import urllib3

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError

CONNECT_SECONDS = 10.0
"""Also for each piece of a body that is sent."""
READ_SECONDS = 60.0
"""For an answer to begin, and for each further LEAST_BYTES of it."""
LEAST_BYTES = 2**20

_PIECE_BYTES = 2**18


class Pool(urllib3.PoolManager):
    """Connections without tries of their own: those are made where a broken body is seen too."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        super().__init__(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            retries=False,
            maxsize=16,
            ssl_context=trust,
        )

    def urlopen(self, method: str, url: str, redirect: bool = True, **rest: Any) -> Any:
        """As the base class, but a body goes out in pieces.

        A socket's timeout is for all that one send is given: in one piece, a large body would
        have to be through in CONNECT_SECONDS.
        """
        body = rest.get("body")
        if isinstance(body, bytes) and len(body) > _PIECE_BYTES:
            starts = range(0, len(body), _PIECE_BYTES)
            rest["body"] = [memoryview(body)[at : at + _PIECE_BYTES] for at in starts]
        return super().urlopen(method, url, redirect, **rest)


def body(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The body of an answer as it comes; the connection is given back at the end.

    Raises:
        TimeoutError: when LEAST_BYTES take longer than READ_SECONDS. A socket's timeout alone
            would let a byte a minute pass.
        urllib3.exceptions.HTTPError: when it is cut short, or nothing comes.
    """
    try:
        since, received = time.monotonic(), 0
        while chunk := response.read1(LEAST_BYTES):
            yield chunk
            received += len(chunk)
            now = time.monotonic()
            if received >= LEAST_BYTES:
                since, received = now, 0
            elif now - since > READ_SECONDS:
                raise TimeoutError(f"{received} bytes in {now - since:.0f} s")
    finally:
        response.close()
        response.release_conn()


def trust(ca_file: str | None) -> ssl.SSLContext:
    """Public roots, the system's, and the CA of the job's Secret when it has one.

    Raises:
        ConfigurationError: StorageDenied, when its file holds no certificate.
    """
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    if ca_file and Path(ca_file).exists():
        try:
            context.load_verify_locations(cafile=ca_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(
                Reason.STORAGE_DENIED,
                f"ca.crt of spec.storage.secretRef ({ca_file}) holds no PEM certificate: {error}",
            ) from error
    return context
