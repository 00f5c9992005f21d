# SPDX-License-Identifier: Apache-2.0
"""Reading an answer of a server that may send without end."""

import httpx


class AnswerTooLong(ValueError):
    """More bytes than an answer of this kind can have."""


async def raw_body(response: httpx.Response, most: int) -> bytes:
    """The body as it was sent; the caller sets the deadline.

    Args:
        response: of `stream`.
        most: bytes that are read.

    Raises:
        AnswerTooLong: for more than `most` bytes.
        httpx.HTTPError: when it breaks off.
    """
    raw = bytearray()
    async for piece in response.aiter_raw():
        raw += piece
        if len(raw) > most:
            raise AnswerTooLong(f"an answer of more than {most} bytes")
    return bytes(raw)
