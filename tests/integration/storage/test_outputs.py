# SPDX-License-Identifier: Apache-2.0
import uuid
from pathlib import Path

import pytest

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import tree_digest
from r1reward_api.wire.runconfig import InputRef, JobIdentity, RunConfig
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.outputs import begin, fetch_input, find, publish, upload_output
from r1reward_trainer.storage.s3 import Store

SPEC = {
    "runtimeRef": {"name": "runtime"},
    "model": {"uri": "hf://organisation/model"},
    "storage": {"uri": "s3://bucket/root", "secretRef": {"name": "s3"}},
    "data": {"preferences": [{"uri": "s3://bucket/rows/*.parquet"}]},
}
KEY = "0" * 64


@pytest.fixture
def store(s3: dict[str, str]) -> Store:
    """An empty prefix of the bucket."""
    return Store(f"s3://{s3['R1_BUCKET']}/{uuid.uuid4().hex}", s3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "deep" / "b.txt").write_text("bb")
    return source


def run_config(stage: str, uid: str, attempt: int = 1) -> RunConfig:
    return RunConfig(
        job=JobIdentity(name="job", namespace="ns", uid=uid),
        stage=Stage(stage),
        attempt=attempt,
        key=KEY,
        spec=SPEC,  # pyright: ignore[reportArgumentType]
        serving={},  # pyright: ignore[reportArgumentType]
    )


def reader(digest: str) -> RunConfig:
    ref = InputRef(stage=Stage.PREPARE, key=KEY, output="model", digest=digest)
    return run_config("sft", "other").model_copy(update={"inputs": {"model": ref}})


def test_an_input_is_what_an_output_was(store: Store, folder: Path, tmp_path: Path):
    config = run_config("prepare", "uid")
    output = upload_output(store, config, "model", folder, rows=3)
    assert output.path == "runs/uid/attempt-1/model"
    assert [f.path for f in output.files] == ["a.txt", "deep/b.txt"]
    assert (output.bytes, output.rows, output.digest) == (3, 3, tree_digest(output.files))
    publish(store, config, {"model": output}, {})

    fetched = fetch_input(store, reader(output.digest), "model", tmp_path / "dest")
    assert (fetched / "a.txt").read_text() == "a"
    assert (fetched / "deep" / "b.txt").read_text() == "bb"


def test_the_second_to_publish_adopts_the_first(store: Store, folder: Path):
    first, second = run_config("prepare", "one"), run_config("prepare", "two")
    outputs = {"model": upload_output(store, first, "model", folder)}
    assert find(store, Stage.PREPARE, KEY) is None
    published, adopted = publish(store, first, outputs, {"rows": "3"})
    assert not adopted

    later = {"model": upload_output(store, second, "model", folder)}
    assert publish(store, second, later, {"rows": "4"}) == (published, True)
    assert find(store, Stage.PREPARE, KEY) == published


def left(store: Store) -> set[str]:
    """Folders with something in them, of all runs: `<uid>/attempt-<n>/<name>` and so on."""
    keys = [found.key for found in store.list("stages/")]
    return {"/".join(key.split("/runs/")[1].split("/")[:3]) for key in keys if "/runs/" in key}


def killed_attempts(store: Store, folder: Path) -> set[str]:
    """What a run's first two attempts leave that were killed: what nobody wants once there is a
    result, and what somebody still wants, which is returned."""
    for attempt in (1, 2):
        config = run_config("rl", "uid", attempt)
        upload_output(store, config, "weights", folder)
        store.put(f"{config.attempt_prefix}/rollout-weights/{attempt}-3/x.safetensors", b"x")
    wanted = {
        "uid/journal/shard-0": f"{run_config('rl', 'uid').run_prefix}/journal/shard-0/a.jsonl",
        "uid/checkpoints/latest.json": f"{config.run_prefix}/checkpoints/latest.json",
        "uid/checkpoints/attempt-1": f"{config.run_prefix}/checkpoints/attempt-1/step-1/x",
        "uid/attempt-4/weights": f"{config.run_prefix}/attempt-4/weights/of-a-later-attempt",
        "other/attempt-1/weights": f"{run_config('rl', 'other').attempt_prefix}/weights/x",
    }
    for key in wanted.values():
        store.put(key, b"wanted")
    return set(wanted)


def test_with_the_result_goes_what_killed_attempts_had_uploaded_and_nothing_else(
    store: Store, folder: Path
):
    wanted = killed_attempts(store, folder)
    config = run_config("rl", "uid", attempt=3)
    assert begin(store, config) is None
    assert {"uid/attempt-1/weights", "uid/attempt-2/weights"} < left(store), "may be published yet"

    store.put(f"{config.attempt_prefix}/rollout-weights/3-3/x.safetensors", b"x")
    publish(store, config, {"weights": upload_output(store, config, "weights", folder)}, {})
    assert left(store) == {*wanted, "uid/attempt-3/weights"}


def test_what_an_attempt_left_that_was_killed_as_it_published_goes_with_the_next(
    store: Store, folder: Path
):
    config = run_config("rl", "uid", attempt=2)
    manifest, _ = publish(
        store, config, {"weights": upload_output(store, config, "weights", folder)}, {}
    )
    wanted = killed_attempts(store, folder)
    assert begin(store, run_config("rl", "uid", attempt=3)) == manifest
    assert left(store) == {*wanted, "uid/attempt-2/weights"}


def test_who_was_not_the_first_to_publish_leaves_nothing_and_the_result_stays(
    store: Store, folder: Path, tmp_path: Path
):
    first, second = run_config("prepare", "one"), run_config("prepare", "two")
    output = upload_output(store, first, "model", folder)
    publish(store, first, {"model": output}, {})
    publish(store, second, {"model": upload_output(store, second, "model", folder)}, {})
    assert left(store) == {"one/attempt-1/model"}
    fetch_input(store, reader(output.digest), "model", tmp_path / "dest")


def test_the_result_of_ones_own_earlier_attempt_is_no_cache_hit(store: Store, folder: Path):
    first, second = (run_config("prepare", "uid", attempt) for attempt in (1, 2))
    output = upload_output(store, second, "model", folder)
    published, _ = publish(
        store, first, {"model": upload_output(store, first, "model", folder)}, {}
    )
    assert publish(store, second, {"model": output}, {}) == (published, False)


@pytest.mark.parametrize("damage", ["other content", "absent", "other digest", "no output"])
def test_an_input_that_is_not_what_was_promised_is_refused(
    store: Store, folder: Path, tmp_path: Path, damage: str
):
    config = run_config("prepare", "uid")
    output = upload_output(store, config, "model", folder)
    publish(store, config, {"other" if damage == "no output" else "model": output}, {})
    place = f"{config.attempt_prefix}/model/a.txt"
    if damage == "other content":
        store.put(place, b"x")
    if damage == "absent":
        store.delete(place)
    digest = "sha256:" + "0" * 64 if damage == "other digest" else output.digest
    with pytest.raises(ConfigurationError) as caught:
        fetch_input(store, reader(digest), "model", tmp_path / "dest")
    assert caught.value.reason == Reason.ARTIFACT_CORRUPT


def test_a_manifest_cannot_write_outside_its_folder(store: Store, folder: Path, tmp_path: Path):
    config = run_config("prepare", "uid")
    output = upload_output(store, config, "model", folder)
    files = [f.model_copy(update={"path": "../escaped"}) for f in output.files[:1]]
    forged = output.model_copy(update={"files": files, "digest": tree_digest(files)})
    publish(store, config, {"model": forged}, {})
    with pytest.raises(ConfigurationError, match="leaves its folder"):
        fetch_input(store, reader(forged.digest), "model", tmp_path / "dest")
    assert not (tmp_path / "escaped").exists()


def test_an_input_that_is_not_configured_is_named(store: Store, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="'model'"):
        fetch_input(store, run_config("sft", "uid"), "model", tmp_path)
