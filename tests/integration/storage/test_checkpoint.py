# SPDX-License-Identifier: Apache-2.0
import signal
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError
from r1reward_trainer.storage.checkpoint import Checkpoints
from r1reward_trainer.storage.errors import PreconditionFailed
from r1reward_trainer.storage.s3 import Store
from tests.integration.storage.mortal import FINGERPRINTS, POINTS, Point, commit, killed_at, state


@pytest.fixture
def uri(s3: dict[str, str]) -> str:
    return f"s3://{s3['R1_BUCKET']}/{uuid.uuid4().hex}"


@pytest.fixture
def store(s3: dict[str, str], uri: str) -> Store:
    return Store(uri, s3)


def checkpoints(
    store: Store, attempt: int, keep: int = 2, fingerprints: Mapping[str, str] = FINGERPRINTS
) -> Checkpoints:
    return Checkpoints(store, "run", attempt, keep, uuid.uuid4().hex, fingerprints)


def claimed(store: Store, attempt: int) -> Checkpoints:
    own = checkpoints(store, attempt)
    own.claim()
    return own


def steps_in(store: Store) -> list[int]:
    """The step of every folder in storage, committed or not."""
    folders = {o.key.split("/")[-2] for o in store.list("run/checkpoints/attempt-")}
    return sorted(int(folder.split("-")[1]) for folder in folders)


def test_a_later_attempt_resumes_what_was_committed(store: Store, tmp_path: Path):
    first = checkpoints(store, 1)
    assert first.claim() is None
    commit(first, tmp_path / "state", 5)

    second = checkpoints(store, 2)
    manifest = second.claim()
    assert manifest is not None
    assert (manifest.step, manifest.attempt) == (5, 1)
    fetched = second.fetch(manifest, tmp_path / "fetched")
    assert {p.name: p.read_text() for p in fetched.iterdir()} == {
        "rank-0": "step 5",
        "rank-1": "step 5, other half",
    }


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_kill_at_any_point_keeps_the_last_committed_step_and_leaves_no_rest(
    s3: dict[str, str], uri: str, store: Store, tmp_path: Path, point: Point
):
    assert killed_at(point, uri, s3, tmp_path / "state") == -signal.SIGKILL

    second = checkpoints(store, 2, keep=1)
    manifest = second.claim()
    assert manifest is not None
    assert manifest.step == (10 if point.committed else 5)
    fetched = second.fetch(manifest, tmp_path / "fetched")
    assert (fetched / "rank-0").read_text() == f"step {manifest.step}"
    assert (fetched / "rank-1").read_text() == f"step {manifest.step}, other half"
    assert steps_in(store) == [manifest.step]  # the attempt may have nothing more to commit

    commit(second, tmp_path / "state", 15)
    assert steps_in(store) == [15]


def test_a_kill_right_after_the_claim_loses_nothing(store: Store, tmp_path: Path):
    commit(claimed(store, 1), tmp_path / "state", 5)
    claimed(store, 2)  # and no more is heard of it
    manifest = checkpoints(store, 3).claim()
    assert manifest is not None
    assert manifest.step == 5


def test_an_earlier_attempt_that_still_runs_cannot_commit(store: Store, tmp_path: Path):
    first, second = checkpoints(store, 1), checkpoints(store, 2)
    first.claim()
    commit(first, tmp_path / "state", 5)
    second.claim()
    with pytest.raises(InfrastructureError) as caught:
        commit(first, tmp_path / "state", 10)
    assert caught.value.reason == Reason.STALE_WRITER

    commit(second, tmp_path / "state", 8)
    manifest = checkpoints(store, 3).claim()
    assert manifest is not None
    assert (manifest.step, manifest.attempt) == (8, 2)
    assert steps_in(store) == [5, 8]


def test_what_a_stale_writer_uploaded_last_goes_with_it(store: Store, tmp_path: Path):
    first, second = claimed(store, 1), claimed(store, 2)
    commit(second, tmp_path / "state", 8)  # its last commit: it prunes no more
    with pytest.raises(InfrastructureError):
        commit(first, tmp_path / "state", 10)
    assert steps_in(store) == [8]


def test_of_two_trainers_of_one_attempt_the_earlier_cannot_touch_the_files_of_the_later(
    store: Store, tmp_path: Path
):
    """As when a pod on a lost node goes on and its replacement has started."""
    first, second = claimed(store, 1), claimed(store, 1)
    commit(second, tmp_path / "state", 5)
    first.upload(5, state(tmp_path / "state", 6))  # other bytes for the same step
    with pytest.raises(InfrastructureError) as caught:
        first.commit(5, [])
    assert caught.value.reason == Reason.STALE_WRITER
    manifest = checkpoints(store, 2).claim()
    assert manifest is not None
    fetched = second.fetch(manifest, tmp_path / "fetched")
    assert (fetched / "rank-0").read_text() == "step 5"


def test_a_commit_whose_answer_was_lost_is_kept_for_the_attempt_that_goes_on_from_it(
    s3: dict[str, str], uri: str, store: Store, tmp_path: Path
):
    class Unanswered(Store):
        """The pointer is written, and a later attempt claims before the writer hears of it."""

        def put_if(self, key: str, data: bytes, etag: str | None) -> str:
            written = super().put_if(key, data, etag)
            if b"step-00000005" not in data:
                return written
            claimed(store, 2)
            raise PreconditionFailed(key)

    first = claimed(Unanswered(uri, s3), 1)
    with pytest.raises(InfrastructureError) as caught:
        commit(first, tmp_path / "state", 5)
    assert caught.value.reason == Reason.STALE_WRITER
    manifest = checkpoints(store, 3).claim()
    assert manifest is not None
    checkpoints(store, 3).fetch(manifest, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "rank-0").read_text() == "step 5"


def test_an_earlier_attempt_cannot_claim_after_a_later_one(store: Store):
    checkpoints(store, 2).claim()
    with pytest.raises(InfrastructureError) as caught:
        checkpoints(store, 1).claim()
    assert caught.value.reason == Reason.STALE_WRITER


def test_only_as_many_as_asked_for_are_kept(store: Store, tmp_path: Path):
    own = checkpoints(store, 1, keep=2)
    own.claim()
    for step in (5, 10, 15, 20):
        commit(own, tmp_path / "state", step)
    assert steps_in(store) == [15, 20]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["data"], "another data (data: sha256:1, now new)"),
        (["tokenizer"], "another tokenizer (tokenizer: 2, now new)"),
        (["data", "tokenizer"], "another data and tokenizer (data: sha256:1, now new; tokenizer"),
    ],
)
def test_state_of_other_data_or_another_tokenizer_is_refused_by_name(
    store: Store, tmp_path: Path, changed: list[str], named: str
):
    commit(claimed(store, 1), tmp_path / "state", 5)
    second = checkpoints(store, 2, fingerprints={**FINGERPRINTS, **dict.fromkeys(changed, "new")})
    with pytest.raises(ConfigurationError) as caught:
        second.claim()
    assert caught.value.reason == Reason.INVALID_SPEC
    assert named in caught.value.message
    assert "create the job under another name" in caught.value.message
    assert steps_in(store) == [5]


def test_a_damaged_checkpoint_is_refused(store: Store, tmp_path: Path):
    own = checkpoints(store, 1)
    own.claim()
    commit(own, tmp_path / "state", 5)
    manifest = checkpoints(store, 2).claim()
    assert manifest is not None
    store.put(f"run/checkpoints/{manifest.path}/rank-1", b"step 5, other hale")
    with pytest.raises(ConfigurationError) as caught:
        own.fetch(manifest, tmp_path / "fetched")
    assert caught.value.reason == Reason.ARTIFACT_CORRUPT
