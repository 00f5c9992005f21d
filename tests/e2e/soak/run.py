# SPDX-License-Identifier: Apache-2.0
"""The soak itself: two jobs at a time, one fault at a time, and a judgement at the end of each."""

import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from r1reward_trainer.outcome import StageError
from r1reward_trainer.storage.s3 import Store
from tests.cluster.errors import ClusterError
from tests.e2e import watch
from tests.e2e.kubectl import KubectlError
from tests.e2e.soak import checks, jobs, storage
from tests.e2e.soak.faults import BY_NAME, DELETE_JOB, FAULTS, Fault, Target
from tests.e2e.soak.history import History, look
from tests.e2e.soak.schedule import pick, schedule
from tests.e2e.soak.site import Site
from tests.e2e.waiting import wait_for

AT_ONCE = 2
LOOK_SECONDS = 2.0
TABLE_SECONDS = 60.0
LAST_JOBS_SECONDS = 1200.0
"""How long the jobs that run when no more faults come may take to their end."""
SILENCE_SECONDS = 180.0
"""How long the API server may not answer before the soak gives up."""
RELEASE_SECONDS = 180.0
"""How long a job that has ended or was deleted may take to let go of its last object."""
_TRANSIENT = (KubectlError, ClusterError, subprocess.TimeoutExpired)


@dataclass
class Entry:
    """One job of the soak.

    Attributes:
        job: as it was applied.
        begin: seconds of the run.
        status: the last one seen.
        history: what was seen.
        outcome: `Succeeded`, `Failed`, `Deleted`, `Unfinished`; None while it runs.
        seconds: from its begin to its end.
    """

    job: Mapping[str, Any]
    begin: float
    status: Mapping[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    outcome: str | None = None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Of the job."""
        return self.job["metadata"]["name"]


@dataclass(frozen=True)
class _Active:
    fault: Fault
    target: Target
    begin: float


class Soak:
    """One run.

    Args:
        site: whose operator and storage are ready.
        seed: of faults and jobs.
        seconds: how long faults come and jobs are started.
        say: where the run tells what it does, a line at a time.
        monotonic, sleep: the clock.
    """

    def __init__(
        self,
        site: Site,
        seed: int,
        seconds: float,
        say: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._site = site
        self._seed = seed
        self._seconds = seconds
        self._say = say
        self._monotonic = monotonic
        self._sleep = sleep
        self._start = monotonic()
        self._draws = schedule(seed, {f.name: f.weight for f in FAULTS})
        self._next = next(self._draws)
        self._due = self._next.pause
        self._active: _Active | None = None
        self._answered = 0.0
        self._table_at = 0.0
        root = f"s3://{site.connection.storage['R1_BUCKET']}/artifacts/{site.namespace}"
        self._store = Store(root, site.connection.storage)
        self.entries: list[Entry] = []
        self.faults: list[checks.Injected] = []
        self.problems: list[str] = []

    def run(self) -> None:
        """Runs to the end; what was found is in `entries`, `faults` and `problems`.

        Raises:
            KubectlError: when the API server does not answer for SILENCE_SECONDS.
        """
        try:
            while not self._is_over():
                self._look()
                self._finish_jobs()
                self._start_jobs()
                self._work_on_faults()
                self._draw_table()
                self._sleep(LOOK_SECONDS)
        finally:
            self._end_fault()
        for entry in self._running():
            self._judge(entry, "Unfinished")

    def elapsed(self) -> float:
        """Seconds since the begin."""
        return round(self._monotonic() - self._start, 1)

    def _is_over(self) -> bool:
        now = self.elapsed()
        if now > self._seconds + LAST_JOBS_SECONDS:
            return True
        return now > self._seconds and not self._running()

    def _running(self) -> list[Entry]:
        return [e for e in self.entries if e.outcome is None]

    def _look(self) -> None:
        """Reads every running job, then what is committed in storage."""
        for entry in self._running():
            try:
                found = self._site.get(entry.name)
            except _TRANSIENT as error:
                if self.elapsed() - self._answered > SILENCE_SECONDS:
                    raise
                self._say(f"no answer yet: {str(error)[:120]}")
                return
            self._answered = self.elapsed()
            if found is None:
                self._release(entry, "Deleted" if self._was_deleted(entry) else "Vanished")
                continue
            entry.status = found.get("status", {})
            pointers = self._pointers(found["metadata"]["uid"], entry.status)
            entry.history = look(entry.history, entry.status, pointers, self.elapsed())

    def _pointers(self, uid: str, status: Mapping[str, Any]) -> dict[str, int] | None:
        if self._active is not None and self._active.fault.name == "stop-s3":
            return None
        try:
            return storage.committed(self._store, uid, status)
        except StageError:
            return None

    def _was_deleted(self, entry: Entry) -> bool:
        return any(f.fault == DELETE_JOB and f.job == entry.name for f in self.faults)

    def _start_jobs(self) -> None:
        while self.elapsed() < self._seconds and len(self._running()) < AT_ONCE:
            number = len(self.entries) + 1
            job = jobs.small_job(f"soak-{number:02}", seed=(self._seed + number) % 2**31)
            try:
                self._site.apply(job)
            except _TRANSIENT as error:
                self._say(f"{job['metadata']['name']} is not applied yet: {str(error)[:120]}")
                return
            self.entries.append(Entry(job, self.elapsed()))
            self._say(f"{self._clock()} {job['metadata']['name']} applied")

    def _finish_jobs(self) -> None:
        """Judges what has ended. Not during a fault: nothing is let go while a node is frozen."""
        if self._active is not None:
            return
        for entry in self._running():
            outcome = checks.ended(entry.status)
            if outcome is not None:
                self._judge(entry, outcome)

    def _judge(self, entry: Entry, outcome: str) -> None:
        entry.seconds = round(self.elapsed() - entry.begin, 1)
        if outcome != "Unfinished":
            self._wait_for_nothing(
                f"{entry.name} has ended and still holds",
                lambda: checks.held(self._site.objects(entry.name), entry.status),
            )
        self._complain(checks.problems(entry.job, entry.status, entry.history, self.faults))
        with suppress(*_TRANSIENT):  # what is not gone is found right after
            self._site.delete(entry.name)
        self._release(entry, outcome)

    def _release(self, entry: Entry, outcome: str) -> None:
        """The job is gone: so must be all that it had."""
        entry.seconds = entry.seconds or round(self.elapsed() - entry.begin, 1)
        entry.outcome = outcome
        self._say(f"{self._clock()} {entry.name} {outcome} after {entry.seconds:.0f} s")
        if outcome == "Vanished":
            self._complain([f"{entry.name}: is gone though nobody deleted it"])
        self._wait_for_nothing(
            f"{entry.name} is deleted and left over are",
            lambda: checks.names(self._site.objects(entry.name)),
        )

    def _wait_for_nothing(self, what: str, left: Callable[[], list[str]]) -> None:
        seen: list[str] = []

        def nothing() -> bool:
            with suppress(*_TRANSIENT):
                seen[:] = left()
                return not seen
            return False

        try:
            wait_for(what, nothing, RELEASE_SECONDS)
        except TimeoutError:
            self._complain([f"{what} {', '.join(seen)} after {RELEASE_SECONDS:.0f} s"])

    def _complain(self, problems: list[str]) -> None:
        for problem in problems:
            self._say(f"{self._clock()} PROBLEM {problem}")
        self.problems += problems

    def _work_on_faults(self) -> None:
        now = self.elapsed()
        if self._active is not None:
            if now >= self._active.begin + self._active.fault.seconds:
                self._end_fault()
        elif now >= self._due and now < self._seconds and self._running():
            self._begin_fault()

    def _begin_fault(self) -> None:
        """The drawn fault, or the next in its order that finds something to hit."""
        names = [e.name for e in self._running()]
        for fault in (BY_NAME[n] for n in self._next.order):
            try:
                candidates = fault.candidates(self._site, names)
            except _TRANSIENT:
                return  # asked again at the next look
            if candidates:
                break
        else:
            return
        target = pick(candidates, self._next.choice)
        begin = self.elapsed()
        self._say(f"{self._clock()} fault {fault.name}: {target.pod_name or target.job or 'all'}")
        self._active = _Active(fault, target, begin)
        self.faults.append(
            checks.Injected(
                fault.name, target.job, target.pod_name, begin, begin + fault.seconds, fault.reasons
            )
        )
        try:
            fault.begin(self._site, target)
        except (*_TRANSIENT, LookupError) as error:
            self._say(f"fault {fault.name} has hit nothing: {str(error)[:120]}")
        if not fault.seconds:
            self._end_fault()

    def _end_fault(self) -> None:
        if self._active is None:
            return
        active, self._active = self._active, None
        try:
            active.fault.end(self._site, active.target)
        except KubectlError as error:  # the job that was to go on is gone
            self._say(f"fault {active.fault.name} has nothing to end: {str(error)[:120]}")
        now = self.elapsed()
        self.faults[-1] = replace(self.faults[-1], end=now)
        self._next = next(self._draws)
        self._due = now + self._next.pause

    def _draw_table(self) -> None:
        if self.elapsed() < self._table_at:
            return
        self._table_at = self.elapsed() + TABLE_SECONDS
        for line in table(self.entries):
            self._say(line)

    def _clock(self) -> str:
        return watch.duration(self.elapsed())


def table(entries: list[Entry]) -> list[str]:
    """The running jobs, one a line, and how the others ended."""
    lines = []
    for entry in entries:
        if entry.outcome is None:
            stages = entry.status.get("stages", [])
            attempts = " ".join(f"{s['name']}:{s.get('attempt', 0)}" for s in stages)
            where = f"{entry.status.get('stage', '')} {entry.status.get('phase', '')}"
            lines.append(f"    {entry.name:9} {where:20} attempts {attempts}")
    ends = [e.outcome for e in entries if e.outcome]
    counts = ", ".join(f"{ends.count(o)} {o}" for o in sorted(set(ends)))
    return [*lines, f"    ended: {counts or 'none'}"]


def record(entry: Entry) -> dict[str, Any]:
    """A job as the result has it."""
    condition = watch.condition(entry.status, "Failed") or {}
    return {
        "name": entry.name,
        "outcome": entry.outcome,
        "reason": condition.get("reason") if entry.outcome == "Failed" else None,
        "seconds": entry.seconds,
        "stages": {
            s["name"]: {
                "phase": s["phase"],
                "attempts": s.get("attempt", 0),
                "programFailures": s.get("programFailures", 0),
                "infrastructureFailures": s.get("infrastructureFailures", 0),
            }
            for s in entry.status.get("stages", [])
        },
        "losses": [asdict(loss) for loss in entry.history.losses],
        "committedSteps": dict(sorted(entry.history.pointers.items())),
    }
