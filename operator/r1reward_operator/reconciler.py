# SPDX-License-Identifier: Apache-2.0
"""One pass over one job: observe, plan, apply, and one write of the status."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from r1reward_api.reasons import Reason
from r1reward_operator.apply import Applied, apply, clear
from r1reward_operator.kube.clock import Clock
from r1reward_operator.kube.errors import Unavailable
from r1reward_operator.kube.events import EventRecorder
from r1reward_operator.kube.writer import Writer
from r1reward_operator.metrics import Metrics
from r1reward_operator.observe import observe
from r1reward_operator.observed import JsonObject, Observed
from r1reward_operator.plan import Plan, Settings, plan
from r1reward_operator.resources import R1REWARDJOBS
from r1reward_operator.stores import Stores

AGAIN_SECONDS = 0.1
"""After a write: what it made possible is looked at without waiting for the watch."""
OBSTACLE_SECONDS = 15.0
"""How often a refused object is tried again."""


@dataclass(frozen=True)
class Reconciler:
    """Makes one job as it should be. Level-triggered: nothing is remembered between passes.

    Attributes:
        stores: what is in memory.
        writer: writes.
        clock: the time.
        settings: the operator's.
        recorder: tells people.
        metrics: tells Prometheus.
        new_token: gives a random token.
        absent: kinds that the API server does not serve now.
        listening_since: since when this process has taken reports of progress.
    """

    stores: Stores
    writer: Writer
    clock: Clock
    settings: Settings
    recorder: EventRecorder
    metrics: Metrics
    new_token: Callable[[], str]
    absent: Callable[[], frozenset[str]]
    listening_since: Callable[[], datetime]

    def __call__(self, namespace: str, name: str) -> float | None:
        """Seconds until the next pass; None until something changes."""
        observed = observe(self.stores, namespace, name, self.absent(), self.listening_since())
        if observed is None:
            return None
        now = self.clock.now()
        wanted = plan(observed, now, self.settings)
        applied = self._apply(observed, wanted)
        if applied.obstacle is not None:
            wanted = plan(observed, now, self.settings, applied.obstacle)
        written = self._write_status(observed.job, wanted)
        cleared = clear(self.writer, observed, wanted)
        if wanted.delete_job:
            # As it was seen: spec.rerun or a longer TTL may have come at the last moment.
            metadata = observed.job["metadata"]
            self.writer.delete(
                R1REWARDJOBS,
                namespace,
                name,
                metadata["uid"],
                resource_version=metadata["resourceVersion"],
            )
            return None
        if applied.obstacle is not None and not applied.obstacle.final:
            # Not at once, even when its words were written: they may be others each time.
            return OBSTACLE_SECONDS
        return AGAIN_SECONDS if written or cleared or applied.changed else wanted.requeue_after

    def _apply(self, observed: Observed, wanted: Plan) -> Applied:
        try:
            return apply(self.writer, observed, wanted, self.new_token)
        except Unavailable as error:
            if error.status:  # it did answer, and may for ever: nobody reads our log for that
                reason = Reason.API_SERVER_ERROR
                self.recorder.event(observed.job, "Warning", reason, f"tried again: {error}")
                self.metrics.event(reason)
            raise

    def _write_status(self, job: JsonObject, wanted: Plan) -> bool:
        if wanted.status is None:
            return False
        live = self.writer.status(R1REWARDJOBS, job, wanted.status, foreign=("progress",))
        if live is None:
            return False
        for event in wanted.events:
            self.recorder.event(job, event.type, event.reason, event.message)
            self.metrics.event(event.reason)
        return True
