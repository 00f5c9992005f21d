# SPDX-License-Identifier: Apache-2.0
"""Puts the parts together: reflectors feed stores and the queue, workers reconcile, two
servers answer."""

import logging
import secrets
import threading
from collections.abc import Callable

from r1reward_api.constants import (
    FIELD_MANAGER,
    GROUP,
    LABEL_MANAGED_BY,
    MANAGED_BY,
)
from r1reward_operator.health import health_handler
from r1reward_operator.http import HttpServer
from r1reward_operator.kube.bucket import TokenBucket
from r1reward_operator.kube.client import JsonObject, KubeClient, Resource
from r1reward_operator.kube.clock import Clock, SystemClock
from r1reward_operator.kube.controller import Controller
from r1reward_operator.kube.events import EventRecorder
from r1reward_operator.kube.lease import Lease
from r1reward_operator.kube.queue import RateLimitedQueue
from r1reward_operator.kube.reflector import EventHandler, Reflector
from r1reward_operator.kube.resources import PODS
from r1reward_operator.kube.store import Key, key_of
from r1reward_operator.kube.writer import Writer
from r1reward_operator.metrics import Metrics
from r1reward_operator.plan import Settings
from r1reward_operator.progress import BODY_LIMIT, ProgressEndpoint, same_but_progress
from r1reward_operator.reconciler import Reconciler
from r1reward_operator.resources import (
    CHILDREN,
    CLUSTERR1REWARDRUNTIMES,
    R1REWARDJOBS,
    R1REWARDRUNTIMES,
)
from r1reward_operator.settings import OperatorSettings
from r1reward_operator.stores import BY_RUNTIME, Stores, job_of, owner_of, runtime_index

logger = logging.getLogger(__name__)

LEASE = "r1reward-operator"
SILENCE_SECONDS = 300.0
"""A reflector that heard nothing this long is stuck: bookmarks come about every minute."""
STOP_SECONDS = 10.0
_LEADING = "leading"
_TOKEN_BYTES = 32
_PROGRESS_RATE = (20.0, 40)


class Operator:
    """One process of the operator.

    Args:
        settings: how it was started.
        client: the API server.
        clock: the time.
        new_token: gives a random token.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        client: KubeClient,
        clock: Clock | None = None,
        new_token: Callable[[], str] = lambda: secrets.token_urlsafe(_TOKEN_BYTES),
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._stop = threading.Event()
        self._began = False
        self._leading_since = self._clock.now()
        self._stores = Stores()
        self.metrics = Metrics()
        self._queue: RateLimitedQueue[Key] = RateLimitedQueue(
            clock=self._clock, metrics=self.metrics
        )
        self._reflectors = self._make_reflectors(client)
        identity = f"{settings.identity}-{secrets.token_hex(4)}"
        self._lease = Lease(
            client,
            settings.namespace,
            LEASE,
            identity,
            clock=self._clock,
            on_acquired=self._lead,
        )
        bucket = TokenBucket(settings.qps, settings.burst, clock=self._clock)
        writer = Writer(client, bucket, FIELD_MANAGER, self.is_leader, self._stores.by_resource())
        self._recorder = EventRecorder(
            client, f"{GROUP}/operator", settings.identity, clock=self._clock
        )
        reconciler = Reconciler(
            stores=self._stores,
            writer=writer,
            clock=self._clock,
            settings=Settings(progress_url=settings.progress_url),
            recorder=self._recorder,
            metrics=self.metrics,
            new_token=new_token,
            absent=self._absent,
            listening_since=lambda: self._leading_since,
        )
        self._controller = Controller(
            self._queue,
            reconciler,
            settings.workers,
            active=self._is_active,
            on_result=self.metrics.reconciled,
            clock=self._clock,
        )
        progress = ProgressEndpoint(
            client,
            self._stores,
            TokenBucket(*_PROGRESS_RATE, max_wait=2.0, clock=self._clock),
            self._clock,
            self.metrics.progress,
        )
        self.metrics.watch_jobs(self._stores.jobs)
        self.metrics.watch_leader(self.is_leader)
        health = health_handler(self.metrics.registry, self._problem, self._waiting)
        self.health_server = HttpServer(settings.host, settings.metrics_port, health)
        self.progress_server = HttpServer(
            settings.host, settings.progress_port, progress.handle, BODY_LIMIT
        )
        self._threads: list[threading.Thread] = []

    def is_leader(self) -> bool:
        """Whether this process may write."""
        return not self._settings.leader_elect or self._lease.is_leader()

    def start(self) -> None:
        """Starts all threads and returns."""
        self.health_server.start()
        self.progress_server.start()
        for resource, reflector in self._reflectors.items():
            self._spawn(f"reflector-{resource}", reflector.run)
        self._spawn("events", self._recorder.run)
        self._spawn(_LEADING, self._begin)

    def stop(self) -> None:
        """Ends all threads: workers first, then the lease is given up, all in STOP_SECONDS."""
        deadline = self._clock.monotonic() + STOP_SECONDS
        self._stop.set()
        if self._began and not self._controller.join(STOP_SECONDS):
            logger.warning("a reconcile is still under way after %.0f s", STOP_SECONDS)
        for thread in reversed(self._threads):  # the lease's first: it must not be taken again
            thread.join(max(0.1, deadline - self._clock.monotonic()))
            if thread.name == _LEADING:
                self._lease.release()
        self.progress_server.close()
        self.health_server.close()

    def _begin(self, stop: threading.Event) -> None:
        """Reconciles nothing before all is known: what is missing would be made again."""
        for reflector in self._reflectors.values():
            while not reflector.synced.wait(1.0):
                if stop.is_set():
                    return
        logger.info("all stores are complete")
        self._controller.start()
        self._began = True
        if self._settings.leader_elect:
            self._lease.run(stop)
        else:
            self._lead()

    def _spawn(self, name: str, target: Callable[[threading.Event], None]) -> None:
        thread = threading.Thread(target=target, args=(self._stop,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _make_reflectors(self, client: KubeClient) -> dict[Resource, Reflector]:
        ours = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
        stores = self._stores.by_resource()
        handlers: dict[Resource, tuple[EventHandler, str | None]] = {
            R1REWARDJOBS: (self._on_job, None),
            R1REWARDRUNTIMES: (self._on_runtime, None),
            CLUSTERR1REWARDRUNTIMES: (self._on_runtime, None),
            PODS: (self._on_pod, ours),
            **dict.fromkeys(CHILDREN.values(), (self._on_child, ours)),
        }
        return {
            resource: Reflector(
                client,
                resource,
                stores[resource],
                handler,
                selector,
                self._settings.watch_namespace if resource.namespaced else None,
                clock=self._clock,
            )
            for resource, (handler, selector) in handlers.items()
        }

    def _on_job(self, kind: str, job: JsonObject, old: JsonObject | None) -> None:
        if kind == "MODIFIED" and old is not None and same_but_progress(old, job):
            return
        self._queue.add(key_of(job))

    def _on_child(self, kind: str, child: JsonObject, old: JsonObject | None) -> None:
        owner = owner_of(child)
        if owner is not None and owner.get("kind") == R1REWARDJOBS.kind:
            self._queue.add((key_of(child)[0], owner["name"]))

    def _on_pod(self, kind: str, pod: JsonObject, old: JsonObject | None) -> None:
        name = job_of(pod)
        if name is not None:
            self._queue.add((key_of(pod)[0], name))

    def _on_runtime(self, kind: str, runtime: JsonObject, old: JsonObject | None) -> None:
        namespace, name = key_of(runtime)
        index = runtime_index(runtime["kind"], namespace, name)
        for job in self._stores.jobs.by_index(BY_RUNTIME, index):
            self._queue.add(key_of(job))

    def _lead(self) -> None:
        """Begins to write. What stages reported before may have reached nobody."""
        self._leading_since = self._clock.now()
        self.resync()

    def resync(self) -> None:
        """Looks at every job again."""
        for job in self._stores.jobs.items():
            self._queue.add(key_of(job))

    def _is_active(self) -> bool:
        return self.is_leader() and not self._waiting()

    def _absent(self) -> frozenset[str]:
        return frozenset(
            r.kind for r, reflector in self._reflectors.items() if not reflector.available
        )

    def _problem(self) -> str:
        if self._waiting():
            return ""  # a process that has not begun is not sick
        stuck = [
            str(resource)
            for resource, reflector in self._reflectors.items()
            if reflector.available and not reflector.healthy(SILENCE_SECONDS)
        ]
        return f"nothing heard of {', '.join(stuck)}" if stuck else ""

    def _waiting(self) -> str:
        waiting = [
            str(r) for r, reflector in self._reflectors.items() if not reflector.synced.is_set()
        ]
        return f"waiting for {', '.join(waiting)}" if waiting else ""
