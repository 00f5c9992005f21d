# SPDX-License-Identifier: Apache-2.0
"""What stands before every route of a service: the token and a limit on bodies."""

import asyncio
import base64
import binascii
import hmac
import json
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/health", "/metrics"})
BODY_SECONDS = 60.0
RETRY_SECONDS = 5


class Guard:
    """ASGI middleware. Unknown paths need the token, too.

    Args:
        app: what it guards.
        token: accepted as a bearer token or as the password of Basic authentication (clients
            that can be given nothing but a URL put it there).
        max_body_bytes: longer bodies get 413.
        open_paths: need no token.
        max_bodies_bytes: where all bodies that are being read or answered have more, a further
            one gets 429. None: no limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        max_body_bytes: int,
        open_paths: Collection[str] = OPEN_PATHS,
        max_bodies_bytes: int | None = None,
    ) -> None:
        self._app = app
        self._open_paths = open_paths
        self._token = token.encode()
        self._max_body_bytes = max_body_bytes
        self._max_bodies_bytes = max_bodies_bytes
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or passes on with a counted body."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        if scope["path"] in self._open_paths:
            await self._app(scope, receive, send)  # where nobody looks at a body
            return
        if not self._known(given):
            await _refuse(send, 401, "the token is needed as a bearer token")
            return
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held += size
            self._held += size
            return message

        try:
            await self._pass_on(scope, headers.get(b"content-length", b"0"), counted, send)
        finally:
            self._held -= held

    async def _pass_on(self, scope: Scope, length: bytes, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._read(length, receive)
        except TimeoutError:
            await _refuse(send, 408, f"the body did not come within {BODY_SECONDS:.0f} s")
            return
        except _Full:
            await _refuse(send, 429, "too many long requests are under way: try again")
            return
        if body is None:
            limit = self._max_body_bytes
            await _refuse(send, 413, f"the body has more than {limit} bytes: send less at once")
            return
        read = False

        async def replayed() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replayed, send)

    async def _read(self, length: bytes, receive: Receive) -> bytes | None:
        """The whole body, None when it is longer than allowed.

        Raises:
            _Full: all bodies together are.
        """
        if not length.isdigit() or int(length) > self._max_body_bytes:
            return None
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                return None
            if self._max_bodies_bytes is not None and self._held > self._max_bodies_bytes:
                raise _Full
            if not message.get("more_body", False):  # the end, or the client is gone
                return bytes(body)

    def _known(self, authorization: bytes) -> bool:
        scheme, _, credentials = authorization.partition(b" ")
        match scheme.lower():
            case b"bearer":
                given = credentials.strip()
            case b"basic":
                given = _password(credentials)
            case _:
                return False
        return hmac.compare_digest(given, self._token)


class _Full(Exception):
    """No room for a further body."""


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers.append((b"retry-after", b"%d" % RETRY_SECONDS))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
