# SPDX-License-Identifier: Apache-2.0
"""Storing a container's last output while it runs, and once more when it has ended.

Standard library alone: the trainer image uses it, too.
"""

import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from r1reward_rollout.download import opener
from r1reward_rollout.periodic import Periodic
from r1reward_rollout.tail import Tail

INTERVAL_SECONDS = 10.0
"""A container that is killed leaves so much unsaid, at most."""
FIRST_SECONDS = 1.0
"""And so much when it is killed at its start, as one whose memory does not suffice is."""
LAST_SECONDS = 5.0
"""So long an ended program waits for its last lines to be stored, at most."""

_PUT_SECONDS = 20.0


class ChangesOnly:
    """Puts the tail when there is something new in it."""

    def __init__(self, tail: Tail, put: Callable[[bytes], None]) -> None:
        self._tail = tail
        self._put = put
        self._stored = 0

    def __call__(self) -> None:
        """Puts the tail, or does nothing."""
        written = self._tail.written
        if written != self._stored:
            self._put(self._tail.read())
            self._stored = written


def uploads(tail: Tail, put: Callable[[bytes], None]) -> Periodic:
    """A context within which the tail is put now and then, and at the end."""
    return Periodic(
        "log upload", ChangesOnly(tail, put), INTERVAL_SECONDS, LAST_SECONDS, FIRST_SECONDS
    )


def presigned_uploads(tail: Tail, environ: Mapping[str, str]) -> AbstractContextManager[Any]:
    """As `uploads`, to the URL that the init container has left: a server has no other right
    in storage than to replace its own log. It tells why a server never became ready; the
    stage's worker asks for logs only where one did. Without a URL nothing is uploaded.
    """
    try:
        file = Path(environ.get("R1_LOG_URL_FILE") or "/models/log-url")
        url = file.read_text(encoding="ascii").strip()
    except OSError:
        return nullcontext()
    http = opener(environ)

    def put(data: bytes) -> None:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        request = urllib.request.Request(url, data, headers, method="PUT")
        http.open(request, timeout=_PUT_SECONDS).close()

    return uploads(tail, put)
