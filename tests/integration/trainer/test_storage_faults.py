# SPDX-License-Identifier: Apache-2.0
"""Training while storage fails: a committed step is never lost, and the fault is named."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.context import StageContext
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError, StageError
from r1reward_trainer.stages import sft
from r1reward_trainer.storage import s3 as storage
from r1reward_trainer.storage.outputs import find
from r1reward_trainer.storage.patience import Patience
from r1reward_trainer.storage.s3 import Store
from tests.clock import FakeClock
from tests.cluster.s3 import Variant
from tests.faulty_way import Fault, FaultyWay, faulty_way
from tests.integration.conftest import StartS3
from tests.integration.s3_client import add_user, allow, unfinished_uploads
from tests.integration.trainer.place import Hook, Place
from tests.small_disk import small_disk

SECTION = {
    "batchSize": 8,
    "maxSteps": 3,
    "learningRate": 1e-3,
    "checkpoint": {"everySteps": 1, "keep": 1},
}
KEY, SECRET = "planted-access-key", "planted-secret-key"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """By which storage is waited for: it takes no time."""
    clock = FakeClock()
    patience = Patience(clock=clock.monotonic, sleep=clock.advance)
    monkeypatch.setattr(storage, "Patience", lambda: patience)
    return clock


@dataclass
class Training:
    """A run of three steps, each of which is committed."""

    place: Place

    def config(self, attempt: int = 1) -> RunConfig:
        return self.place.config(Stage.SFT, SECTION, attempt=attempt)

    def run(self, attempt: int = 1, after_step: Hook = lambda step: None) -> list[int]:
        """Steps that an attempt that succeeds has done."""
        steps: list[int] = []

        def hook(context: StageContext, step: int) -> None:
            steps.append(step)
            after_step(step)

        config = self.config(attempt)
        sft.run(config, self.place.context(config, hook))
        return steps

    def fails(self, after_step: Hook) -> StageError:
        """The error of the first attempt, which leaves no result."""
        with pytest.raises(StageError) as caught:
            self.run(after_step=after_step)
        return caught.value

    def committed(self) -> list[int]:
        """Steps that the pointer lists."""
        pointer = self.place.store.get(f"{self.config().run_prefix}/checkpoints/latest.json")
        return [checkpoint["step"] for checkpoint in json.loads(pointer)["committed"]]

    def result(self) -> object:
        return find(self.place.store, Stage.SFT, self.config().key or "")


@pytest.fixture
def way(s3: dict[str, str]) -> Iterator[FaultyWay]:
    with faulty_way(s3["AWS_ENDPOINT_URL"]) as way:
        yield way


@pytest.fixture
def training(
    s3: dict[str, str], way: FaultyWay, tmp_path: Path, model_folder: Path, clock: FakeClock
) -> Training:
    return Training(Place({**s3, "AWS_ENDPOINT_URL": way.url}, tmp_path / "place", model_folder))


def test_a_store_that_is_away_for_a_minute_costs_no_step(
    training: Training, way: FaultyWay, clock: FakeClock
):
    def away(step: int) -> None:
        back = clock.monotonic() + 60
        way.rule = lambda request: Fault.AWAY if clock.monotonic() < back else None

    assert training.run(after_step=away) == [1, 2, 3]
    assert training.result() is not None
    assert clock.monotonic() >= 180


def test_a_store_that_stays_away_ends_the_attempt_and_the_next_goes_on(
    s3: dict[str, str], training: Training, way: FaultyWay
):
    def away_from_2(step: int) -> None:
        if step == 2:
            way.rule = lambda request: Fault.AWAY

    error = training.fails(away_from_2)
    assert isinstance(error, InfrastructureError)
    assert error.reason == Reason.STORAGE_UNAVAILABLE
    assert "checkpoints/attempt-1/step-00000002" in error.message

    way.rule = lambda request: None
    assert (training.committed(), training.result()) == ([1], None)
    assert unfinished_uploads(s3, training.place.root.rpartition("/")[2]) == []
    assert training.run(attempt=2) == [2, 3]
    assert training.result() is not None


def test_rights_that_are_taken_away_end_the_attempt_and_what_is_committed_stays(
    start_s3: StartS3,
    tmp_path: Path,
    model_folder: Path,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
):
    users = tmp_path / "users"
    users.mkdir()
    owner = start_s3(Variant(options=(f"--iam-dir={users}",)))
    user = add_user(owner, KEY, SECRET)
    reading = ["s3:ListBucket", "s3:GetObject"]
    allow(owner, KEY, [*reading, "s3:PutObject", "s3:DeleteObject"])
    training = Training(Place(user, tmp_path / "place", model_folder))

    def read_only_from_2(step: int) -> None:
        if step == 2:
            allow(owner, KEY, reading)

    error = training.fails(read_only_from_2)
    assert isinstance(error, ConfigurationError)
    assert error.reason == Reason.STORAGE_DENIED
    assert "AccessDenied" in error.message
    assert (training.committed(), training.result()) == ([1], None)
    for planted in (KEY, SECRET):
        assert planted not in error.message + caplog.text

    allow(owner, KEY, [*reading, "s3:PutObject", "s3:DeleteObject"])
    assert training.run(attempt=2) == [2, 3]


def test_a_full_store_ends_the_attempt_and_what_is_committed_stays(
    start_s3: StartS3, tmp_path: Path, model_folder: Path, clock: FakeClock
):
    disk = tmp_path / "disk"
    disk.mkdir()
    environ = start_s3(Variant(within=small_disk(disk, "64m"), at=disk))
    training = Training(Place(environ, tmp_path / "place", model_folder))
    ballast = Store(f"s3://{environ['R1_BUCKET']}/ballast", environ)

    def fill_at_2(step: int) -> None:
        if step == 2:
            fill(ballast)

    error = training.fails(fill_at_2)
    assert isinstance(error, InfrastructureError)
    assert error.reason == Reason.STORAGE_FULL
    assert "free space in the store" in error.message
    assert (training.committed(), training.result()) == ([1], None)
    assert unfinished_uploads(environ) == []

    ballast.delete_prefix("")
    assert training.run(attempt=2) == [2, 3]
    assert training.result() is not None


def fill(store: Store) -> None:
    """Until not even 64 KiB find room."""
    number = 0
    for size in (2**22, 2**20, 2**16):
        while True:
            try:
                store.put(f"{number:05}", bytes(size))
            except InfrastructureError:
                break
            number += 1


@pytest.mark.parametrize("how", ["altered", "cut", "gone"])
def test_a_damaged_checkpoint_is_named_with_a_remedy_that_helps(training: Training, how: str):
    def stop_at_2(step: int) -> None:
        if step == 2:
            raise InfrastructureError(Reason.PEER_LOST, "the node is gone")

    training.fails(stop_at_2)
    store, folder = training.place.store, f"{training.config().run_prefix}/checkpoints"
    (committed,) = json.loads(store.get(f"{folder}/latest.json"))["committed"]
    place = f"{folder}/{committed['path']}"
    manifest = json.loads(store.get(f"{place}/manifest.json"))
    shard = next(f for f in manifest["files"] if f["path"].endswith(".safetensors"))
    key = f"{place}/{shard['path']}"
    whole = store.get(key)
    if how == "gone":
        store.delete(key)
    else:
        store.put(key, whole[:-4] + b"gone" if how == "altered" else whole[:-4])

    with pytest.raises(ConfigurationError) as caught:
        training.run(attempt=2)
    assert caught.value.reason == Reason.ARTIFACT_CORRUPT
    assert store.uri(key) in caught.value.message
    assert ("not in storage" if how == "gone" else shard["sha256"]) in caught.value.message
    assert f"delete {store.uri(folder)}/latest.json" in caught.value.message
    assert (training.committed(), training.result()) == ([1], None)

    store.delete(f"{folder}/latest.json")
    assert training.run(attempt=3) == [1, 2, 3]
