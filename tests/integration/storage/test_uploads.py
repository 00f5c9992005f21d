# SPDX-License-Identifier: Apache-2.0
"""Large files on a way with faults: what arrives, and what is left of what does not."""

import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError
from r1reward_trainer.storage import multipart
from r1reward_trainer.storage import s3 as storage
from r1reward_trainer.storage.outputs import begin
from r1reward_trainer.storage.patience import Patience
from r1reward_trainer.storage.s3 import Store
from tests.clock import FakeClock
from tests.faulty_way import Fault, FaultyWay, Request, faulty_way
from tests.integration.s3_client import client, unfinished_uploads
from tests.integration.storage.test_outputs import run_config

PART = 5 * 2**20


@pytest.fixture
def way(s3: dict[str, str]) -> Iterator[FaultyWay]:
    with faulty_way(s3["AWS_ENDPOINT_URL"]) as way:
        yield way


@pytest.fixture
def root(s3: dict[str, str]) -> str:
    return uuid.uuid4().hex


@pytest.fixture
def store(s3: dict[str, str], way: FaultyWay, root: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Cuts files into parts of 5 MiB, and waits by a clock that takes no time."""
    monkeypatch.setattr(storage, "PART_BYTES", PART)
    monkeypatch.setattr(storage, "MULTIPART_FROM_BYTES", PART)
    clock = FakeClock()
    patience = Patience(clock=clock.monotonic, sleep=clock.advance)
    environ = {**s3, "AWS_ENDPOINT_URL": way.url}
    return Store(f"s3://{s3['R1_BUCKET']}/{root}", environ, patience)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of three parts, the last of them short."""
    path = tmp_path / "file"
    path.write_bytes(b"".join(bytes([n]) * 2**20 for n in range(12)))
    return path


def times(way: FaultyWay, times: int, fault: Fault, method: str, *query: str) -> None:
    """The first requests of a method with these query parameters meet a fault."""
    left = [fault] * times

    def rule(request: Request) -> Fault | None:
        meant = request.method == method and request.query.keys() >= set(query)
        return left.pop() if meant and left else None

    way.rule = rule


def arrived(store: Store, path: Path, tmp_path: Path) -> bool:
    store.get_file("large", tmp_path / "copy")
    return (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_only_the_parts_that_were_lost_are_sent_again(
    store: Store, way: FaultyWay, file: Path, tmp_path: Path
):
    times(way, 2, Fault.AWAY, "PUT", "partNumber")
    store.put_file(file, "large")
    assert arrived(store, file, tmp_path)
    sent = Counter(r.query["partNumber"] for r in way.requests if r.method == "PUT")
    assert sent.keys() == {"1", "2", "3"}
    assert sent.total() == 5


@pytest.mark.parametrize("lost", ["uploads", "uploadId"])
def test_a_lost_answer_costs_neither_the_file_nor_an_unfinished_upload(
    s3: dict[str, str],
    root: str,
    store: Store,
    way: FaultyWay,
    file: Path,
    tmp_path: Path,
    lost: str,
):
    times(way, 1, Fault.LOST, "POST", lost)
    store.put_file(file, "large")
    assert arrived(store, file, tmp_path)
    assert unfinished_uploads(s3, root) == []


def test_a_file_that_cannot_be_sent_leaves_nothing(
    s3: dict[str, str], root: str, store: Store, way: FaultyWay, file: Path
):
    times(way, 10_000, Fault.AWAY, "PUT", "partNumber")
    with pytest.raises(InfrastructureError) as caught:
        store.put_file(file, "large")
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
    assert f"{root}/large" in caught.value.message
    assert unfinished_uploads(s3, root) == []
    assert store.head("large") is None


def test_an_upload_that_cannot_even_be_ended_tells_its_first_fault_and_goes_with_the_next_attempt(
    s3: dict[str, str], root: str, store: Store, way: FaultyWay, file: Path
):
    config = run_config("sft", "uid", attempt=2)
    mine = f"{config.run_prefix}/attempt-1/weights/model.safetensors"
    others = f"{run_config('sft', 'other').run_prefix}/attempt-1/weights/model.safetensors"

    def away_once_begun(request: Request) -> Fault | None:
        return Fault.AWAY if request.query.get("uploadId") else None

    way.rule = away_once_begun
    for key in (mine, others):
        with pytest.raises(InfrastructureError, match="put s3://"):
            store.put_file(file, key)
    assert unfinished_uploads(s3, root) == [f"{root}/{key}" for key in sorted((mine, others))]

    way.rule = lambda request: None
    assert begin(store, config) is None
    assert unfinished_uploads(s3, root) == [f"{root}/{others}"]


def test_an_upload_that_somebody_ended_is_lost_to_infrastructure(
    s3: dict[str, str],
    root: str,
    store: Store,
    way: FaultyWay,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    # A server may keep an upload that is ended while another of its parts is being written.
    monkeypatch.setattr(multipart, "PARALLEL_PARTS", 1)
    owner = client(s3)

    def end_it(request: Request) -> Fault | None:
        if request.query.get("partNumber") == "2":
            for upload in owner._list_multipart_uploads(s3["R1_BUCKET"], prefix=root).uploads:
                owner._abort_multipart_upload(
                    s3["R1_BUCKET"], upload.object_name, upload.upload_id or ""
                )
        return None

    way.rule = end_it
    # What the server says of it differs, and it may close the connection on the part instead.
    with pytest.raises(InfrastructureError) as caught:
        store.put_file(file, "large")
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
    way.rule = lambda request: None
    assert store.head("large") is None


@pytest.mark.parametrize("large", [True, False])
def test_an_answer_that_is_cut_short_is_asked_for_again(
    store: Store, way: FaultyWay, file: Path, tmp_path: Path, large: bool
):
    store.put_file(file, "large")
    times(way, 3, Fault.CUT, "GET")
    if large:
        assert arrived(store, file, tmp_path)
    else:
        assert store.get("large") == file.read_bytes()
    assert [r.method for r in way.requests].count("GET") == 4


def test_a_download_that_never_ends_well_leaves_no_file(
    store: Store, way: FaultyWay, file: Path, tmp_path: Path
):
    store.put_file(file, "large")
    times(way, 10_000, Fault.CUT, "GET")
    with pytest.raises(InfrastructureError) as caught:
        store.get_file("large", tmp_path / "folder/copy")
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_manifest_cut_in_half_is_named_with_the_remedy(store: Store):
    config = run_config("sft", "uid")
    store.put(f"{config.stage_prefix}/manifest.json", b'{"version":1,"stage":"sf')
    with pytest.raises(ConfigurationError, match="is no stage manifest") as caught:
        begin(store, config)
    assert caught.value.reason == Reason.ARTIFACT_CORRUPT
    assert f"{config.stage_prefix}/manifest.json" in caught.value.message
    assert "delete it" in caught.value.message
