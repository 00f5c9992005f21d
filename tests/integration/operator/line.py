# SPDX-License-Identifier: Apache-2.0
"""The line between an operator and the real API server: it notes what goes over it, and
breaks when a test says so."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from r1reward_operator.kube.client import KubeClient
from r1reward_operator.kube.errors import Unavailable
from r1reward_operator.kube.transport import EventStream, Transport

_FROZEN_SECONDS = 60.0
_NOT_OBJECTS = ("/leases", "/events", "/tokenreviews")


class Call(NamedTuple):
    """One request; the method of a watch is `WATCH`."""

    method: str
    path: str

    @property
    def is_write(self) -> bool:
        """Whether it changes an object other than a Lease or an Event."""
        return self.method not in ("GET", "WATCH") and not any(
            part in self.path for part in _NOT_OBJECTS
        )


Hook = Callable[[Call], None]


def _nothing(call: Call) -> None:
    return None


class Line(Transport):
    """A transport over another client's.

    Args:
        client: whose way to the API server it is.

    Attributes:
        calls: every request, also those that were cut off.
        written: every write that the API server has taken in.
        before: called before a write is sent; what it raises keeps it from being sent.
        after: called after a write was done; what it raises takes the place of its answer.
    """

    def __init__(self, client: KubeClient) -> None:
        self._over = client._transport
        self.calls: list[Call] = []
        self.written: list[Call] = []
        self.before: Hook = _nothing
        self.after: Hook = _nothing
        self._whole = True
        self._flows = threading.Event()
        self._flows.set()
        self._streams: set[EventStream] = set()
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Nothing goes over the line from now on; watches end."""
        with self._lock:
            self._whole = False
            for stream in self._streams:
                stream.close()
            self._streams.clear()

    def mend(self) -> None:
        """The line is whole again."""
        self._whole = True

    def freeze(self) -> None:
        """Requests wait from now on, as those of a stopped process do."""
        self._flows.clear()

    def thaw(self) -> None:
        """Requests go on, those that waited too."""
        self._flows.set()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float,
    ) -> dict[str, Any]:
        """As `Transport.request`."""
        call = self._begin(method, path)
        if call.is_write:
            self.before(call)
        self._flows.wait(_FROZEN_SECONDS)
        answer = self._over.request(
            method, path, query=query, body=body, content_type=content_type, timeout=timeout
        )
        if call.is_write:
            self.written.append(call)
            self.after(call)
        return answer

    def stream(self, path: str, *, query: Mapping[str, str], inactivity: float) -> EventStream:
        """As `Transport.stream`."""
        self._begin("WATCH", path)
        self._flows.wait(_FROZEN_SECONDS)
        stream = self._over.stream(path, query=query, inactivity=inactivity)
        with self._lock:
            self._streams.add(stream)
        return stream

    def _begin(self, method: str, path: str) -> Call:
        call = Call(method, path)
        self.calls.append(call)
        if not self._whole:
            raise Unavailable(0, "Cut", f"{method} {path}: the line is cut")
        return call
