# SPDX-License-Identifier: Apache-2.0
"""Large files on a way with faults: what arrives, and what is left of what does not."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError
from r1reward_trainer.storage import multipart
from r1reward_trainer.storage import s3 as storage
from r1reward_trainer.storage.handover import Handover
from r1reward_trainer.storage.outputs import begin, publish, upload_output
from r1reward_trainer.storage.patience import Patience
from r1reward_trainer.storage.s3 import Stopped, Store
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
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(
    s3: dict[str, str],
    way: FaultyWay,
    root: str,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    """Cuts files into parts of 5 MiB, and waits by a clock that takes no time."""
    monkeypatch.setattr(storage, "PART_BYTES", PART)
    monkeypatch.setattr(storage, "MULTIPART_FROM_BYTES", PART)
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


def test_what_was_left_half_handed_over_goes_with_the_next_hand_over(
    s3: dict[str, str], root: str, store: Store, way: FaultyWay, file: Path, tmp_path: Path
):
    config = run_config("evaluate", "uid", attempt=2)
    way.rule = lambda request: Fault.AWAY if request.query.get("uploadId") else None
    key = f"jobs/{config.job.name}/predictions/predictions.parquet"
    with pytest.raises(InfrastructureError, match="put s3://"):
        store.put_file(file, key)
    assert unfinished_uploads(s3, root) == [f"{root}/{key}"]

    way.rule = lambda request: None
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "predictions.parquet").hardlink_to(file)
    output = upload_output(store, config, "predictions", folder)
    manifest, _ = publish(store, config, {"predictions": output}, {})
    earlier = f"jobs/{config.job.name}/predictions/official/vl/rl.given.jsonl"
    beside = [f"jobs/{config.job.name}/logs/a.log", "jobs/other/predictions/official/a.jsonl"]
    for stored in (earlier, *beside):
        store.put(stored, b"{}")
    Handover(store, config).put(manifest, tmp_path / "scratch")
    assert store.head(earlier) is None, "two results would be read as one"
    assert all(store.head(stored) for stored in beside)
    assert unfinished_uploads(s3, root) == []
    store.get_file(key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()


@pytest.fixture
def end_uploads(
    s3: dict[str, str], root: str, way: FaultyWay, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], None]:
    """Somebody ends so many uploads, each before its second part."""
    # A server may keep an upload that is ended while another of its parts is being written.
    monkeypatch.setattr(multipart, "PARALLEL_PARTS", 1)
    owner = client(s3)

    def so_many(count: int) -> None:
        ended: set[str] = set()

        def end_it(request: Request) -> None:
            upload = request.query.get("uploadId", "")
            if request.query.get("partNumber") == "2" and len(ended | {upload}) <= count:
                if upload not in ended:
                    owner._abort_multipart_upload(s3["R1_BUCKET"], f"{root}/large", upload)
                ended.add(upload)

        way.rule = end_it

    return so_many


def begun(way: FaultyWay) -> int:
    return sum(r.method == "POST" and "uploads" in r.query for r in way.requests)


def test_an_upload_that_somebody_ended_is_begun_anew_at_once(
    s3: dict[str, str],
    root: str,
    store: Store,
    way: FaultyWay,
    clock: FakeClock,
    file: Path,
    tmp_path: Path,
    end_uploads: Callable[[int], None],
):
    end_uploads(2)
    start = clock.monotonic()
    store.put_file(file, "large")
    # A server may close the connection on the part before it says that the upload is gone.
    assert clock.monotonic() - start < 10
    assert begun(way) == 3
    assert arrived(store, file, tmp_path)
    assert unfinished_uploads(s3, root) == []


def test_uploads_that_somebody_ends_again_and_again_are_lost_to_infrastructure_soon(
    s3: dict[str, str],
    root: str,
    store: Store,
    way: FaultyWay,
    clock: FakeClock,
    file: Path,
    end_uploads: Callable[[int], None],
):
    end_uploads(10_000)
    start = clock.monotonic()
    with pytest.raises(InfrastructureError, match="ended by somebody else") as caught:
        store.put_file(file, "large")
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
    assert "lifecycle rule" in caught.value.message
    assert clock.monotonic() - start < 30
    assert begun(way) == 3
    way.rule = lambda request: None
    assert store.head("large") is None
    assert unfinished_uploads(s3, root) == []


def test_an_upload_that_is_told_to_stop_sends_no_further_part_and_leaves_nothing(
    s3: dict[str, str], root: str, store: Store, way: FaultyWay, file: Path
):
    stop = threading.Event()

    def stopping(request: Request) -> Fault | None:
        if request.query.get("partNumber"):
            stop.set()
            return Fault.AWAY  # nor is what failed tried again
        return None

    way.rule = stopping
    with pytest.raises(Stopped):
        store.put_file(file, "large", stop)
    sent = [r for r in way.requests if r.query.get("partNumber")]
    assert 1 <= len(sent) <= multipart.PARALLEL_PARTS
    assert unfinished_uploads(s3, root) == []
    assert store.head("large") is None
    with pytest.raises(Stopped):
        store.put_file(file, "large", stop)
    assert begun(way) == 1


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
