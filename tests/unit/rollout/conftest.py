# SPDX-License-Identifier: Apache-2.0
"""Servers and fleets on loopback addresses of one port."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from r1reward_trainer.rollout import FleetOptions, RolloutFleet
from tests.unit.rollout.protocol_server import JOB_UID, TOKEN, Loop, ProtocolServer, event_loop


def _sign(key: str) -> str:
    return f"http://store/{key}?signature"


class Site:
    """A headless Service: servers at 127.0.0.2 and up, and what its name resolves to."""

    def __init__(self, loop: Loop, stack: ExitStack) -> None:
        self._loop = loop
        self._stack = stack
        self._port = 0
        self.listed: set[str] = set()
        self.resolves = True
        self._lock = threading.Lock()

    def server(self, number: int, **attributes: object) -> ProtocolServer:
        """Start server ``number`` and list it."""
        address = f"127.0.0.{number + 1}"
        server = ProtocolServer(
            self._loop,
            address,
            self._port,
            pod_uid=str(attributes.pop("pod_uid", f"pod-{number}")),
        )
        for name, value in attributes.items():
            setattr(server, name, value)
        server.start()
        self._port = server.port
        self._stack.callback(server.kill)
        with self._lock:
            self.listed.add(address)
        return server

    def resolve(self, service: str, port: int) -> frozenset[str]:
        if not self.resolves:
            raise OSError(f"{service} is unknown")
        with self._lock:
            return frozenset(self.listed)

    def fleet(self, presign: Callable[[str], str] = _sign, **options: float) -> RolloutFleet:
        settings: dict[str, float] = {
            "resolve_interval": 0.05,
            "probe_timeout": 5.0,
            "request_timeout": 20.0,
            "control_timeout": 5.0,
            "prepare_timeout": 5.0,
            "no_server_timeout": 10.0,
            **options,
        }
        fleet = RolloutFleet(
            FleetOptions(service="rollout", job_uid=JOB_UID, port=self._port or 1, **settings),  # type: ignore[arg-type]
            token=TOKEN,
            presign=presign,
            resolve=self.resolve,
        )
        self._stack.callback(fleet.close)
        return fleet


@pytest.fixture
def site() -> Iterator[Site]:
    with event_loop() as loop, ExitStack() as stack:
        yield Site(loop, stack)
