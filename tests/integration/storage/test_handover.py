# SPDX-License-Identifier: Apache-2.0
"""`jobs/<name>/` of jobs of one name, one after another, whose pods do not all end in time."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_trainer.outcome import InfrastructureError
from r1reward_trainer.storage.handover import Handover
from r1reward_trainer.storage.outputs import publish, upload_output
from r1reward_trainer.storage.s3 import ObjectInfo, Store
from tests.integration.storage.test_outputs import run_config


class Watched(Store):
    """A store that calls a test after it was asked for an object's state."""

    after_head: Callable[[str], None] = staticmethod(lambda key: None)

    def head(self, key: str) -> ObjectInfo | None:
        found = super().head(key)
        self.after_head(key)
        return found


class Job:
    """A job of the name `job`, with its evaluation.

    Args:
        store: of the namespace.
        uid: of the job.
        folder: for this test.
    """

    def __init__(self, store: Store, uid: str, folder: Path) -> None:
        self.store = store
        self.uid = uid
        self._scratch = folder / f"{uid}-{uuid.uuid4().hex}"
        config = run_config("evaluate", uid)
        self._config = config.model_copy(update={"key": f"key-of-{uid}"})

    def starts(self, attempt: int = 1) -> Handover:
        """A pod of it starts."""
        return Handover(self.store, self._config.model_copy(update={"attempt": attempt}))

    def result(self, **summary: str) -> StageManifest:
        """Its evaluation is published."""
        folder = self._scratch / "report"
        folder.mkdir(parents=True)
        (folder / "report.html").write_text(self.uid)
        outputs = {"report": upload_output(self.store, self._config, "report", folder)}
        return publish(self.store, self._config, outputs, summary)[0]

    def puts(self, handover: Handover, result: StageManifest) -> None:
        handover.put(result, self._scratch / uuid.uuid4().hex)


@pytest.fixture
def store(s3: dict[str, str]) -> Watched:
    return Watched(f"s3://{s3['R1_BUCKET']}/{uuid.uuid4().hex}", s3)


@pytest.fixture
def deleted(store: Watched, tmp_path: Path) -> Job:
    return Job(store, "deleted", tmp_path)


@pytest.fixture
def successor(store: Watched, tmp_path: Path) -> Job:
    return Job(store, "successor", tmp_path)


def shown(store: Store) -> tuple[str, str]:
    """Whose result latest.json names, and whose report lies there."""
    latest = json.loads(store.get("jobs/job/latest.json"))
    return latest["job"]["uid"], store.get("jobs/job/report/report.html").decode()


def refused(job: Job, handover: Handover, result: StageManifest) -> None:
    with pytest.raises(InfrastructureError) as caught:
        job.puts(handover, result)
    assert caught.value.reason is Reason.STALE_WRITER
    assert "jobs/job/claim.json was written by another pod since" in caught.value.message


def test_a_pod_of_a_deleted_job_changes_nothing_of_the_next_job_of_its_name(
    store: Watched, deleted: Job, successor: Job
):
    straggler, late = deleted.starts(), deleted.result()
    pod = successor.starts()
    refused(deleted, straggler, late)
    assert store.head("jobs/job/latest.json") is None
    successor.puts(pod, successor.result())
    assert shown(store) == ("successor", "successor")
    refused(deleted, straggler, late)
    assert shown(store) == ("successor", "successor")


def test_a_pod_that_is_overtaken_between_its_last_look_and_its_put_loses_the_put(
    store: Watched, deleted: Job, successor: Job
):
    """It has just seen that it still has the claim, when the next job hands over."""
    straggler, late = deleted.starts(), deleted.result()
    result = successor.result()
    looks = 0

    def overtake(key: str) -> None:
        nonlocal looks
        looks += key.endswith("/claim.json")
        if looks == 3:  # before the copies, before what is old is cleared, before latest.json
            store.after_head = lambda key: None
            successor.puts(successor.starts(), result)

    store.after_head = overtake
    refused(deleted, straggler, late)
    assert looks == 3
    assert shown(store) == ("successor", "successor")


def test_a_claim_that_a_pod_of_a_deleted_job_took_late_is_taken_back_by_the_next_attempt(
    store: Watched, deleted: Job, successor: Job
):
    pod, result = successor.starts(), successor.result()
    deleted.puts(deleted.starts(), deleted.result())
    assert shown(store) == ("deleted", "deleted")
    refused(successor, pod, result)
    successor.puts(successor.starts(attempt=2), result)
    assert shown(store) == ("successor", "successor")


def test_an_earlier_attempt_that_still_runs_moves_nothing_back(store: Watched, successor: Job):
    first, result = successor.starts(), successor.result()
    successor.puts(successor.starts(attempt=2), result)
    before = store.get("jobs/job/latest.json")
    refused(successor, first, result)
    assert store.get("jobs/job/latest.json") == before


def test_a_result_whose_gates_fail_leaves_the_one_that_a_deleted_job_left(
    store: Watched, deleted: Job, successor: Job
):
    deleted.puts(deleted.starts(), deleted.result())
    successor.puts(successor.starts(), successor.result(gates="failed: Accuracy is below 0.5"))
    assert shown(store) == ("deleted", "successor")
