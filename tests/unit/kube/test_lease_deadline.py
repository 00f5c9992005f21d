# SPDX-License-Identifier: Apache-2.0
from typing import Any

from r1reward_operator.kube.client import JsonObject, KubeClient
from r1reward_operator.kube.errors import NotFound, Unavailable
from r1reward_operator.kube.lease import Lease
from r1reward_operator.kube.transport import Transport
from tests.clock import FakeClock


class Lossy(Transport):
    """A server with one Lease, whose answers can be lost on the way: that takes all the time
    that the caller gives it."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._lease: JsonObject | None = None
        self.losses = 0

    def request(
        self, method: str, path: str, *, body: Any = None, timeout: float, **_: Any
    ) -> JsonObject:
        """As `Transport.request`."""
        if self.losses:
            self.losses -= 1
            self._clock.advance(timeout)
            raise Unavailable(0, "ReadTimeoutError", path)
        if method == "GET" and self._lease is None:
            raise NotFound(404, "NotFound", path)
        if method != "GET":
            metadata = {**body["metadata"], "uid": "u", "resourceVersion": "1"}
            self._lease = {"metadata": metadata, "spec": body["spec"]}
        assert self._lease is not None
        return self._lease


def test_one_lost_answer_does_not_cost_the_lease() -> None:
    clock = FakeClock()
    transport = Lossy(clock)
    told: list[str] = []
    lease = Lease(
        KubeClient(transport), "n", "l", "me", clock=clock, on_lost=lambda: told.append("lost")
    )
    lease.step()
    clock.advance(2)
    transport.losses = 1
    lease.step()
    clock.advance(2)
    assert lease.is_leader()
    lease.step()
    assert lease.is_leader()
    assert told == []
