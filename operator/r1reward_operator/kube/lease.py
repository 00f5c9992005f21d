# SPDX-License-Identifier: Apache-2.0
"""Leader election by a Lease, as client-go does it."""

import logging
import random
import threading
from collections.abc import Callable
from typing import Any

from r1reward_operator.kube.backoff import Backoff
from r1reward_operator.kube.client import JsonObject, KubeClient
from r1reward_operator.kube.clock import Clock, SystemClock, micro_time
from r1reward_operator.kube.errors import AlreadyExists, ApiError, Conflict
from r1reward_operator.kube.resources import LEASES

logger = logging.getLogger(__name__)


class Lease:
    """Competes for one Lease, so that of several processes at most one writes.

    The holder renews every `retry_period` and counts as the leader for `renew_deadline`
    after the start of its last successful renewal. Others take over when they have not
    seen the Lease change for `lease_duration`. The difference is the margin for writes
    that are under way and for clocks of different speed. Only durations are compared,
    never two machines' clocks.

    Args:
        client: reads and writes the Lease, with less patience than others have.
        namespace: of the Lease.
        name: of the Lease.
        identity: of this process; unique, such as pod name and a random suffix.
        clock: for durations and for the times in the Lease.
        lease_duration: seconds.
        renew_deadline: seconds; less than `lease_duration`.
        retry_period: seconds.
        on_acquired: called in the lease's thread whenever this process becomes the leader,
            also after `is_leader` said no for a moment only.
        on_lost: called in the lease's thread when it notices that it no longer is.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Clock | None = None,
        lease_duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
        on_acquired: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        if not retry_period < renew_deadline < lease_duration:
            raise ValueError(
                "retry_period < renew_deadline < lease_duration must hold, not "
                f"{retry_period} < {renew_deadline} < {lease_duration}"
            )
        self.identity = identity
        # One lost answer must not cost the lease: there is time for another try.
        self._client = client.within(renew_deadline / 2)
        self._namespace = namespace
        self._name = name
        self._clock = clock or SystemClock()
        self._duration = lease_duration
        self._renew_deadline = renew_deadline
        self._retry = Backoff(base=retry_period, cap=retry_period)
        self._on_acquired = on_acquired
        self._on_lost = on_lost
        self._leader_until = float("-inf")
        self._leading = False
        # The Lease as last seen, and when it was first seen so.
        self._seen: tuple[str | None, str | None] | None = None
        self._seen_at = 0.0

    def is_leader(self) -> bool:
        """Whether this process may write now.

        A process that was frozen finds here that its time is over, before anybody tells it.
        """
        return self._clock.monotonic() < self._leader_until

    def run(self, stop: threading.Event) -> None:
        """Acquires, renews and, when `stop` is set, releases the Lease."""
        while not stop.is_set():
            try:
                self.step()
            except Exception:
                # A callback failed, or the Lease was written by hand. A dead thread would
                # leave every replica waiting.
                logger.exception("lease %s/%s failed", self._namespace, self._name)
            stop.wait(self._retry.delay(0, random.random))
        self.release()

    def step(self) -> None:
        """One attempt to acquire or renew, and the calls that follow from it."""
        try:
            self._try_acquire()
        except (Conflict, AlreadyExists):
            logger.debug("another process was faster with lease %s", self._name)
        except ApiError as error:
            logger.warning("cannot reach lease %s/%s: %s", self._namespace, self._name, error)
        self._notice()

    def release(self) -> None:
        """Gives the Lease up, if it is held, so that another process need not wait."""
        held = self.is_leader()
        # First, so that no write of ours can follow the release.
        self._leader_until = float("-inf")
        self._notice()
        if not held:
            return
        try:
            live = self._client.get(LEASES, self._namespace, self._name)
            if live is not None and live["spec"].get("holderIdentity") == self.identity:
                self._write(live, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except ApiError as error:
            logger.warning("cannot release lease %s; it will run out: %s", self._name, error)

    def _try_acquire(self) -> None:
        started = self._clock.monotonic()
        live = self._client.get(LEASES, self._namespace, self._name)
        if live is None:
            self._create()
        else:
            self._observe(live)
            spec = live.get("spec") or {}
            holder = spec.get("holderIdentity")
            if holder == self.identity:
                self._write(live, {})
            elif not holder or self._run_out(spec):
                logger.info("taking lease %s over from %r", self._name, holder)
                self._write(
                    live,
                    {
                        "holderIdentity": self.identity,
                        "acquireTime": micro_time(self._clock.now()),
                        "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
                    },
                )
            else:
                # Somebody else holds it, whatever this process believed.
                self._leader_until = float("-inf")
                return
        # From before the request: nobody can have begun to wait for us earlier.
        until, self._leader_until = self._leader_until, started + self._renew_deadline
        if self._leading and self._clock.monotonic() >= until:
            # Renewed, but too late: for a while `is_leader` said no, and work was dropped.
            self._leading = False
            self._on_lost()

    def _create(self) -> None:
        now = micro_time(self._clock.now())
        self._client.create(
            LEASES,
            {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"namespace": self._namespace, "name": self._name},
                "spec": {
                    "holderIdentity": self.identity,
                    "leaseDurationSeconds": round(self._duration),
                    "acquireTime": now,
                    "renewTime": now,
                    "leaseTransitions": 0,
                },
            },
        )

    def _write(self, live: JsonObject, changes: dict[str, Any]) -> None:
        spec = {
            "leaseDurationSeconds": round(self._duration),
            "renewTime": micro_time(self._clock.now()),
            **changes,
        }
        version = live["metadata"]["resourceVersion"]
        self._client.patch(
            LEASES,
            self._namespace,
            self._name,
            {"metadata": {"resourceVersion": version}, "spec": spec},
        )

    def _observe(self, live: JsonObject) -> None:
        seen = (live["metadata"].get("uid"), live["metadata"].get("resourceVersion"))
        if seen != self._seen:
            self._seen = seen
            self._seen_at = self._clock.monotonic()

    def _run_out(self, spec: dict[str, Any]) -> bool:
        duration = float(spec.get("leaseDurationSeconds") or self._duration)
        return self._clock.monotonic() >= self._seen_at + duration

    def _notice(self) -> None:
        leading = self.is_leader()
        if leading == self._leading:
            return
        self._leading = leading
        if leading:
            logger.info("%s leads by lease %s/%s", self.identity, self._namespace, self._name)
            self._on_acquired()
        else:
            logger.warning("%s no longer leads", self.identity)
            self._on_lost()
