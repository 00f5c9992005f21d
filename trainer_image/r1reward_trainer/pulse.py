# SPDX-License-Identifier: Apache-2.0
"""A sign of life of every process of a stage, beside whatever its main thread waits for.

A process that is frozen, or whose node is cut off, breaks no connection: a collective
with it ends after half an hour at the earliest, and cannot say who did not come. So every
process sends rank 0 a datagram now and then with the place where it is, and rank 0
answers with all places. Who is not heard of any more is lost. Who was told to stop says so in
it, as rank 0 may be waiting for services and look at nothing else.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

logger = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
PATIENCE = 36
"""Beats without a sign of life, 3 minutes: no garbage collection or full disk lasts so long."""

_MAX_BYTES = 60_000
_FAREWELLS = 3
"""A datagram may be lost."""

Address = tuple[Any, ...]
Meeting = tuple[int, str]
"""Rank 0's port, and a secret that keeps other pods' datagrams out."""


class Watch:
    """Who has been silent for how long, as a plain value.

    Silence is counted in own beats: a process that was frozen itself blames nobody when it
    goes on. Who was never heard of is not missed either, as where datagrams cannot pass.

    Args:
        patience: beats of silence after which a process is lost.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._silent: dict[int, int] = {}
        self.places: dict[int, str] = {}

    def heard(self, rank: int, place: str) -> None:
        """A process is alive, and where it is."""
        self._silent[rank] = 0
        self.places[rank] = place

    def left(self, rank: int) -> None:
        """A process has said that it is done."""
        self._silent.pop(rank, None)

    def beat(self) -> list[int]:
        """Another beat has passed; gives the ranks that are lost by now."""
        for rank in self._silent:
            self._silent[rank] += 1
        return sorted(r for r, beats in self._silent.items() if beats >= self._patience)


class Pulse:
    """Tells and watches in a thread; `on_lost` is called in it, once, with what is known.

    Args:
        rank: of this process.
        leader: runs a function on rank 0 and gives its result to all.
        on_lost: gets a sentence that names who is lost, and where it was.
        stop: set after SIGTERM to this process; on rank 0 also after one to any other.
    """

    def __init__(
        self,
        rank: int,
        leader: Callable[[Callable[[], Meeting]], Meeting],
        on_lost: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self.place = "starting"
        self._rank = rank
        self._on_lost = on_lost
        self._watch = Watch(PATIENCE)
        self._addresses: dict[int, Address] = {}
        self._stop_work = stop
        self._stop = threading.Event()
        own = _bound() if rank == 0 else None
        port, self._secret = leader(
            lambda: (own.getsockname()[1] if own else 0, secrets.token_hex(16))
        )
        if own is None:
            own, self._addresses[0] = _towards(os.environ["MASTER_ADDR"], port)
        self._socket = own
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def places(self) -> str:
        """Where every process was when it was last heard of; "" when nobody was."""
        known = self._watch.places
        return ", ".join(f"rank {rank} at {known[rank]}" for rank in sorted(known))

    def close(self, done: bool) -> None:
        """Ends the watch.

        Args:
            done: the work is done, and nobody need miss this process. After a failure it falls
                silent instead, so that the others do not go on without it.
        """
        self._stop.set()
        self._thread.join()
        for _ in range(_FAREWELLS if done else 0):
            self._tell({"left": True})
        self._socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._rank != 0:
                self._tell({"stopping": True} if self._stop_work.is_set() else {})
            self._listen(time.monotonic() + BEAT_SECONDS)
            lost = self._watch.beat()
            if lost and not self._stop.is_set():
                self._lose(_sentence(lost, self._watch.places))

    def _listen(self, until: float) -> None:
        """Takes what comes until the end of the beat."""
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            self._socket.settimeout(min(left, 0.5))
            try:
                data, address = self._socket.recvfrom(_MAX_BYTES)
                message = json.loads(data)
            except (OSError, ValueError):
                continue  # nothing came, or a stranger's
            if isinstance(message, dict) and message.get("secret") == self._secret:
                self._take(message, address)

    def _take(self, message: Mapping[str, Any], address: Address) -> None:
        sender = int(message["rank"])
        if message.get("left"):
            self._watch.left(sender)
            return
        self._watch.heard(sender, str(message["place"]))
        if self._rank == 0:
            if message.get("stopping"):
                self._stop_work.set()
            self._addresses[sender] = address
            self._tell({"places": self._watch.places}, only=sender)
            return
        for rank, place in message.get("places", {}).items():
            self._watch.places[int(rank)] = place
        if reason := message.get("lost"):
            self._lose(str(reason))

    def _lose(self, reason: str) -> None:
        self._stop.set()
        if self._rank == 0:
            self._tell({"lost": reason})
        self._on_lost(reason)

    def _tell(self, content: Mapping[str, Any], only: int | None = None) -> None:
        message = {"secret": self._secret, "rank": self._rank, "place": self.place, **content}
        data = json.dumps(message).encode()
        for rank, address in list(self._addresses.items()):
            if only in (None, rank):
                with suppress(OSError):  # the network may be away for a while
                    self._socket.sendto(data, address)


def _sentence(lost: list[int], places: Mapping[int, str]) -> str:
    seconds = PATIENCE * BEAT_SECONDS
    known = "; ".join(f"rank {rank}, last at {places[rank]}" for rank in lost)
    return f"no sign of life for {seconds:g} s from {known}"


def _bound() -> socket.socket:
    """A socket at some port of all of this pod's addresses."""
    if socket.has_dualstack_ipv6():
        found = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    else:
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.bind(("", 0))
    return found


def _towards(host: str, port: int) -> tuple[socket.socket, Address]:
    """A socket that can reach the address, and the address."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    return socket.socket(family, socket.SOCK_DGRAM), address
