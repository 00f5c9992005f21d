# SPDX-License-Identifier: Apache-2.0
"""The soak's loop over a cluster that is played: what it does to jobs, and what it finds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from r1reward_api.reasons import Reason
from tests.clock import FakeClock
from tests.e2e.soak import run
from tests.e2e.soak.faults import Fault, Target
from tests.e2e.soak.run import Soak, record, table
from tests.e2e.soak.site import Site
from tests.unit.e2e.test_soak_checks import whole

LOOKS = 40
"""After so many looks a played job has succeeded."""


@dataclass
class PlayedConnection:
    storage: dict[str, str] = field(
        default_factory=lambda: {"R1_BUCKET": "b", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    )


@dataclass
class PlayedSite:
    """Jobs that succeed by themselves; `left` is what stays of each."""

    namespace: str = "soak"
    connection: PlayedConnection = field(default_factory=PlayedConnection)
    looks: dict[str, int] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)
    losses: dict[str, Any] = field(default_factory=dict)
    left: list[dict[str, Any]] = field(default_factory=list)

    def apply(self, job: dict[str, Any]) -> None:
        self.looks[job["metadata"]["name"]] = 0

    def get(self, job: str) -> dict[str, Any] | None:
        if job not in self.looks:
            return None
        self.looks[job] += 1
        running = {"stages": [{"name": "sft", "phase": "Running", **self.losses}]}
        status = whole(sft=self.losses) if self.looks[job] > LOOKS else running
        return {"metadata": {"uid": job}, "status": status}

    def delete(self, job: str) -> None:
        self.looks.pop(job, None)

    def objects(self, job: str) -> list[dict[str, Any]]:
        return self.left


def first_job(site: Site, jobs: Sequence[str]) -> list[Target]:
    return [Target(jobs[0])]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RELEASE_SECONDS", 0.0)
    monkeypatch.setattr(run.storage, "committed", lambda *_: {})
    monkeypatch.setattr("tests.e2e.waiting.POLL_SECONDS", 0.01)


def soak(monkeypatch: pytest.MonkeyPatch, site: PlayedSite, fault: Fault, seconds: float) -> Soak:
    """A soak with this one fault, run to its end."""
    monkeypatch.setattr(run, "FAULTS", (fault,))
    monkeypatch.setattr(run, "BY_NAME", {fault.name: fault})
    clock = FakeClock()
    made = Soak(cast("Site", site), 1, seconds, lambda _: None, clock.monotonic, clock.advance)
    made.run()
    return made


def harmless(site: PlayedSite, seconds: float = 0.0) -> Fault:
    return Fault(
        "harmless",
        first_job,
        lambda _, target: site.acts.append(f"begin {target.job}"),
        frozenset(),
        seconds=seconds,
        end=lambda _, target: site.acts.append(f"end {target.job}"),
    )


def test_jobs_run_two_at_a_time_until_the_time_is_over_and_all_are_judged(
    monkeypatch: pytest.MonkeyPatch,
):
    site = PlayedSite()
    made = soak(monkeypatch, site, harmless(site), 300)
    assert made.problems == []
    assert len(made.entries) > 2
    assert {e.outcome for e in made.entries} == {"Succeeded"}
    assert site.looks == {}
    assert table(made.entries)[-1] == f"    ended: {len(made.entries)} Succeeded"
    assert record(made.entries[0])["stages"]["rl"]["attempts"] == 1


def test_every_fault_that_began_has_been_ended_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
):
    site = PlayedSite()
    made = soak(monkeypatch, site, harmless(site, seconds=30), 400)
    assert len(made.faults) > 1
    assert [a.split()[0] for a in site.acts] == ["begin", "end"] * len(made.faults)
    assert all(f.begin + 30 <= f.end for f in made.faults)


def test_a_job_that_a_fault_deletes_is_gone_and_one_that_nobody_deleted_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
):
    def delete(_: Site, target: Target) -> None:
        site.delete(target.job or "")

    site = PlayedSite()
    made = soak(monkeypatch, site, Fault("delete-job", first_job, delete, frozenset()), 200)
    assert "Deleted" in {e.outcome for e in made.entries}
    assert made.problems == []

    site = PlayedSite()
    made = soak(monkeypatch, site, Fault("other", first_job, delete, frozenset()), 200)
    assert made.problems[0].endswith("is gone though nobody deleted it")


def test_what_a_job_leaves_is_named(monkeypatch: pytest.MonkeyPatch):
    stuck = {"kind": "Secret", "metadata": {"name": "soak-01-rl-1-token"}, "status": {}}
    site = PlayedSite(left=[stuck])
    made = soak(monkeypatch, site, harmless(site), 1)
    assert "soak-01 has ended and still holds Secret/soak-01-rl-1-token after 0 s" in made.problems


def test_a_lost_attempt_needs_a_fault_that_explains_it(monkeypatch: pytest.MonkeyPatch):
    losses = {"infrastructureFailures": 1, "reason": "PodLost", "message": "gone"}
    site = PlayedSite(losses=losses)
    made = soak(monkeypatch, site, harmless(site), 1)
    assert any("no fault explains why an attempt of sft ended: PodLost" in p for p in made.problems)

    site = PlayedSite()

    def begin(_: Site, target: Target) -> None:
        site.losses.update(losses)

    fault = Fault("kill", first_job, begin, frozenset({Reason.POD_LOST}))
    made = soak(monkeypatch, site, fault, 65)
    explained = [e for e in made.entries if e.name == made.faults[0].job]
    assert not [p for p in made.problems if p.startswith(f"{explained[0].name}:")]
