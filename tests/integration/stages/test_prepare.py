# SPDX-License-Identifier: Apache-2.0
import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from r1reward_api.constants import Stage
from r1reward_api.keys import planned_key
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_trainer.codedigest import code_digests
from r1reward_trainer.data.rows import Row, open_annotated, open_rows, open_set, write_rows
from r1reward_trainer.outcome import ConfigurationError, Interrupted, ProgramError
from r1reward_trainer.stages import prepare
from r1reward_trainer.storage.outputs import find, publish, upload_output
from tests.faulty_way import Request, faulty_way
from tests.integration.stages.harness import SERVING, Killed, Workplace, die
from tests.integration.stages.preparing import ROWS, output, put_jsonl, record, run


def test_rows_and_model_are_staged_split_by_image_and_balanced(
    workplace: Workplace, spec: dict[str, Any], model_folder: Path
) -> None:
    outcome = run(workplace, spec)
    assert set(outcome.manifest.outputs) == {"model", "train", "heldout", "quality"}
    assert outcome.code == code_digests()
    train = list(open_rows(output(workplace, outcome.manifest, "train")))
    heldout = list(open_rows(output(workplace, outcome.manifest, "heldout")))
    assert (len(train), len(heldout)) == (64, 16)
    assert {r.images for r in train}.isdisjoint({r.images for r in heldout})
    assert [r.gold for r in train].count(1) == 32
    better = {r.id: (r.answer1, r.answer2)[r.gold - 1] for r in ROWS}
    assert {r.id: (r.answer1, r.answer2)[r.gold - 1] for r in train + heldout} == better
    model = output(workplace, outcome.manifest, "model")
    assert {p.name: p.read_bytes() for p in model.iterdir()} == {
        p.name: p.read_bytes() for p in model_folder.iterdir()
    }
    summary = outcome.manifest.summary
    assert {name: summary[name] for name in ("trainRows", "heldoutRows", "badRows")} == {
        "trainRows": "64",
        "heldoutRows": "16",
        "badRows": "0",
    }


def test_an_equal_job_of_the_namespace_is_a_cache_hit_and_changed_data_is_not(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    first = run(workplace, spec)
    other = Workplace(workplace.environ, workplace.folder, workplace.root)
    second = run(other, spec)
    assert (first.cache_hit, second.cache_hit) == (False, True)
    assert second.manifest == first.manifest

    put_jsonl(workplace, "rows/more.parquet", [])
    workplace.open_store(f"{workplace.root}/rows").delete("more.parquet")
    assert run(other, spec).cache_hit
    write_rows(workplace.folder / "less", ROWS[:40], Row)
    workplace.open_store(f"{workplace.root}/rows").put_file(
        workplace.folder / "less/part-00000.parquet", "part-00000.parquet"
    )
    third = run(other, spec)
    assert not third.cache_hit
    assert third.manifest.outputs["model"].digest == first.manifest.outputs["model"].digest


def test_what_was_uploaded_by_an_attempt_that_was_killed_before_it_published_goes(
    workplace: Workplace, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(number: int) -> StageManifest:
        config = workplace.config(spec, Stage.PREPARE, attempt=number)
        return prepare.run(config, workplace.context(Stage.PREPARE)).manifest

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "publish", die)
        with pytest.raises(Killed):
            attempt(1)
    manifest = attempt(2)
    assert workplace.left(manifest) == {f"attempt-2/{name}" for name in manifest.outputs}


@pytest.mark.parametrize("what", ["rows/part-00000.parquet", "base/generation_config.json"])
def test_what_is_overwritten_while_it_is_read_is_never_known_by_the_digest_of_what_it_was(
    workplace: Workplace, spec: dict[str, Any], what: str
) -> None:
    other = replace(workplace, uid="other")
    folder, _, name = what.partition("/")
    if folder == "rows":
        write_rows(workplace.folder / "new", ROWS[:40], Row)
        new = (workplace.folder / "new" / name).read_bytes()
    else:
        new = b"{}"
    place = workplace.open_store(f"{workplace.root}/{folder}")
    place.put(name, place.get(name) if place.head(name) else b"{ }")
    old = place.get(name)

    with faulty_way(workplace.environ["AWS_ENDPOINT_URL"]) as way:

        def overwrite(request: Request) -> None:
            if request.method == "GET" and request.key.endswith(what):
                place.put(name, new)

        way.rule = overwrite
        reader = replace(workplace, environ={**workplace.environ, "AWS_ENDPOINT_URL": way.url})
        with pytest.raises(ProgramError, match="changed while it was read") as caught:
            run(reader, spec)
    reason = Reason.INVALID_DATA if folder == "rows" else Reason.INVALID_MODEL
    assert caught.value.reason is reason

    now = prepare.run(
        workplace.config(spec, Stage.PREPARE, attempt=2), workplace.context(Stage.PREPARE)
    )
    place.put(name, old)
    before = run(other, spec)
    assert (now.cache_hit, before.cache_hit) == (False, False)
    assert now.manifest.key != before.manifest.key


def test_later_stages_that_are_already_computed_are_found(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    spec = {
        **spec,
        "annotate": {"teacher": {"baseUrl": "http://teacher/v1", "model": "t"}},
        "sft": {},
    }
    prepared = run(workplace, spec)
    assert prepared.cached == []
    known = {Stage.PREPARE: prepared.manifest}
    config = workplace.config(spec, Stage.ANNOTATE, known)
    folder = workplace.folder / "made"
    folder.mkdir()
    (folder / "x").write_text("x")
    outputs = {name: upload_output(workplace.store, config, name, folder) for name in ("sft", "rl")}
    annotated, _ = publish(workplace.store, config, outputs, {"accepted": "1"})

    again = run(workplace, spec)
    assert [(c.stage, c.key, c.summary) for c in again.cached] == [
        (Stage.ANNOTATE, annotated.key, {"accepted": "1"})
    ]
    digests = {
        stage: {name: out.digest for name, out in manifest.outputs.items()}
        for stage, manifest in {**known, Stage.ANNOTATE: annotated}.items()
    }
    assert planned_key(config.spec, SERVING, Stage.SFT, digests, again.code, "") is not None


def test_bad_rows_are_quarantined_up_to_the_limit(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    images = workplace.open_store(f"{workplace.root}/mixed")
    images.put("pictures/9.png", ROWS[36].images[0])
    put_jsonl(
        workplace,
        "mixed/rows.jsonl",
        [
            record(ROWS[0]),
            record(ROWS[4]),
            record(ROWS[36], images=["pictures/9.png"]),
            "{not json",
            record(ROWS[8], gold=5),
            record(ROWS[8], images=["pictures/absent.png"]),
            record(ROWS[8], images=["../rows/part-00000.parquet"]),
            record(ROWS[8], images=["half a pair \ud800.png"]),
            record(ROWS[8], question="word " * 64),
        ],
    )
    spec = {
        **spec,
        "data": {
            **spec["data"],
            "preferences": [{"uri": f"{workplace.root}/mixed/*.jsonl"}],
            "maxBadRows": 6,
        },
    }
    outcome = run(workplace, spec)
    quality = output(workplace, outcome.manifest, "quality")
    bad = [json.loads(line) for line in (quality / "bad-rows.jsonl").read_text().splitlines()]
    assert [(b["line"], b["reason"], b["id"]) for b in bad] == [
        (4, "not-json", None),
        (5, "gold-not-1-or-2", ROWS[8].id),
        (6, "image-missing", ROWS[8].id),
        (7, "image-missing", ROWS[8].id),
        (8, "image-missing", ROWS[8].id),
        (9, "prompt-too-long", ROWS[8].id),
    ]
    assert {b["source"] for b in bad} == {f"{workplace.root}/mixed/rows.jsonl"}
    report = json.loads((quality / "report.json").read_text())
    assert (report["rows"], report["badRows"], report["images"]) == (3, 6, 3)

    spec["data"]["maxBadRows"] = 5
    with pytest.raises(ConfigurationError) as error:
        run(workplace, spec)
    assert error.value.reason is Reason.INVALID_DATA
    assert "6 of 9 rows are bad" in error.value.message
    assert "data.maxBadRows is 5" in error.value.message
    kept = error.value.message.split("All are in ")[1].split(": correct")[0]
    store = workplace.open_store(kept.rsplit("/", 1)[0])
    assert len(store.get("bad-rows.jsonl").splitlines()) == 6


def test_ones_own_chains_are_checked_and_kept_apart_from_the_held_out_images(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    chains = [
        record(row, response=f"<think>seen</think><answer>{row.gold}</answer>") for row in ROWS
    ]
    put_jsonl(workplace, "chains/own.jsonl", chains)
    outcome = run(workplace, {**spec, "sft": {"chains": f"{workplace.root}/chains/own.jsonl"}})
    kept = list(open_annotated(output(workplace, outcome.manifest, "chains")))
    heldout = list(open_rows(output(workplace, outcome.manifest, "heldout")))
    assert {r.images for r in kept}.isdisjoint({r.images for r in heldout})
    assert len(kept) + len(heldout) == len(ROWS)
    assert all(f"<answer>{r.gold}</answer>" in r.response for r in kept)


def test_chains_about_images_that_look_like_held_out_ones_are_named_and_left_out_on_demand(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    def copied(row: Row) -> Row:
        file = io.BytesIO()
        Image.open(io.BytesIO(row.images[0])).save(file, "PNG", compress_level=0)
        assert file.getvalue() != row.images[0]
        return replace(row, images=(file.getvalue(),))

    chains = [
        record(copied(row), response=f"<think>seen</think><answer>{row.gold}</answer>")
        for row in ROWS
    ]
    put_jsonl(workplace, "chains/own.jsonl", chains)
    spec["data"]["contamination"] = "Remove"
    outcome = run(workplace, {**spec, "sft": {"chains": f"{workplace.root}/chains/own.jsonl"}})
    heldout = {r.id for r in open_rows(output(workplace, outcome.manifest, "heldout"))}
    kept = {r.id for r in open_annotated(output(workplace, outcome.manifest, "chains"))}
    lines = (output(workplace, outcome.manifest, "quality") / "contamination.jsonl").read_text()
    named = {line["chain"] for line in map(json.loads, lines.splitlines()) if "chain" in line}
    assert heldout <= named
    assert kept == {row.id for row in ROWS} - named
    report = json.loads(
        (output(workplace, outcome.manifest, "quality") / "report.json").read_text()
    )
    found = report["chains"]["contamination"]
    assert (report["chains"]["rows"], found["rows"]) == (len(kept), len(named))
    assert found["sets"]["heldout"]["givenAway"] == len(heldout)
    assert outcome.manifest.summary["contaminatedChains"] == str(len(named))
    told = f"{len(named)} chains of sft.chains, which were left out"
    assert any(told in warning for warning in report["warnings"]), report["warnings"]


def test_chains_that_an_evaluation_set_knows_are_named_and_stay_where_training_rows_do(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    train = list(open_rows(output(workplace, run(workplace, spec).manifest, "train")))
    put_jsonl(workplace, "bench/own.jsonl", [record(train[0], id="known")])
    chains = [record(row, response=f"<think>a</think><answer>{row.gold}</answer>") for row in train]
    put_jsonl(workplace, "chains/own.jsonl", chains)
    sets = [{"name": "own", "uri": f"{workplace.root}/bench/own.jsonl"}]
    spec = {**spec, "evaluate": {**spec["evaluate"], "sets": sets}}
    outcome = run(workplace, {**spec, "sft": {"chains": f"{workplace.root}/chains/own.jsonl"}})
    report = json.loads(
        (output(workplace, outcome.manifest, "quality") / "report.json").read_text()
    )
    found = report["chains"]["contamination"]["sets"]["own"]
    assert (found["rows"], found["givenAway"], found["byImage"]) == (1, 1, 4)
    assert found["examples"][0]["chain"] in {row.id for row in train}
    assert report["chains"]["rows"] == len(train)
    told = "1 of 1 rows of own share an image or a text with 4 chains of sft.chains, which stay"
    assert any(told in warning for warning in report["warnings"]), report["warnings"]


def test_each_evaluation_set_is_imported_with_the_benchmarks_ids_and_categories(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    images = workplace.open_store(f"{workplace.root}/bench")
    for number in range(4):
        images.put(f"mcq/{number}.png", ROWS[4 * number].images[0])
        images.put(f"video/clip/frame_{number + 8}.png", ROWS[4 * number].images[0])
    pair = {"prompt": "Which word?", "chosen": "two", "rejected": "three"}
    lines = [{"id": "a", "image": f"mcq/{number}.png", **pair} for number in range(3)]
    lines.append({"id": "b", "video": "video/clip", **pair})
    put_jsonl(workplace, "bench/bench.jsonl", lines)
    sets = [
        {
            "name": "mm-rlhf",
            "uri": f"{workplace.root}/bench/bench.jsonl",
            "format": "MMRLHFRewardBench",
        }
    ]
    spec = {**spec, "evaluate": {**spec["evaluate"], "sets": sets}}
    config = workplace.config(spec, Stage.PREPARE)
    serving = config.serving.model_copy(update={"images_per_prompt": 2})
    config = config.model_copy(update={"serving": serving})
    outcome = prepare.run(config, workplace.context(Stage.PREPARE))

    rows = list(open_set(output(workplace, outcome.manifest, "set-mm-rlhf")))
    assert [(r.id, r.item, r.category) for r in rows] == [
        ("a#0", "a", "mcq/0.png"),
        ("a#1", "a", "mcq/1.png"),
        ("a#2", "a", "mcq/2.png"),
        ("b#3", "b", "video/clip"),
    ]
    assert [(r.answer1, r.answer2)[r.gold - 1] for r in rows] == ["two"] * 4
    assert sorted(r.gold for r in rows) == [1, 1, 2, 2]
    assert rows[3].images == (ROWS[0].images[0], ROWS[12].images[0])  # frames 8 and 11
    report = json.loads(
        (output(workplace, outcome.manifest, "quality") / "report.json").read_text()
    )
    assert report["sets"]["mm-rlhf"]["fewerFrames"] == 1
    told = "1 rows of mm-rlhf are judged by fewer frames than their videos have; raise"
    assert any(told in warning for warning in report["warnings"]), report["warnings"]
    known = {Stage.PREPARE: outcome.manifest}
    evaluate = workplace.config(spec, Stage.EVALUATE, known)
    assert evaluate.inputs["set-mm-rlhf"].digest == outcome.manifest.outputs["set-mm-rlhf"].digest

    images.put("mcq/0.png", ROWS[8].images[0])
    again = prepare.run(config, workplace.context(Stage.PREPARE))
    assert not again.cache_hit, "an image beside the set was changed"
    same = ("train", "heldout", "model")
    digests = [{n: o.manifest.outputs[n].digest for n in same} for o in (outcome, again)]
    assert digests[0] == digests[1], "a set changes nothing that is trained on"


def test_training_rows_that_an_evaluation_set_knows_are_named_and_removed_when_asked(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    train = list(open_rows(output(workplace, run(workplace, spec).manifest, "train")))
    put_jsonl(workplace, "bench/own.jsonl", [record(train[0], id="known", category="words")])
    sets = [{"name": "own", "uri": f"{workplace.root}/bench/own.jsonl"}]
    spec = {**spec, "evaluate": {**spec["evaluate"], "sets": sets}}
    reported = run(workplace, spec).manifest
    spec["data"] = {**spec["data"], "contamination": "Remove", "bothOrders": True}
    removed = run(workplace, spec).manifest

    report = json.loads((output(workplace, reported, "quality") / "report.json").read_text())
    found = report["contamination"]["sets"]["own"]
    assert (found["rows"], found["givenAway"]) == (1, 1)
    assert found["examples"][0]["item"] == "known"
    assert report["sets"]["own"]["rows"] == 1
    assert report["tokens"]["answer"]["max"] >= 1
    assert any("1 of 1 rows of own share an image" in w for w in report["warnings"])
    known = {row.id for row in train if row.images == train[0].images}
    assert len(known) == 4
    assert [r.id for r in open_rows(output(workplace, reported, "train"))] == [r.id for r in train]
    kept = {
        row.id.removesuffix("~swapped") for row in open_rows(output(workplace, removed, "train"))
    }
    assert kept.isdisjoint(known)
    assert removed.outputs["train"].rows == 2 * len(kept)
    assert len(kept) == 64 - int(removed.summary["contaminatedRows"])
    assert removed.outputs["heldout"].digest == reported.outputs["heldout"].digest


def test_a_bad_row_of_an_evaluation_set_is_told_by_the_sets_name(
    workplace: Workplace, spec: dict[str, Any]
) -> None:
    put_jsonl(workplace, "bench/own.jsonl", [record(ROWS[0]), record(ROWS[4], gold=3)])
    sets = [{"name": "own", "uri": f"{workplace.root}/bench/own.jsonl"}]
    with pytest.raises(ConfigurationError, match=r"evaluate\.sets own: 1 of 2 rows are bad"):
        run(workplace, {**spec, "evaluate": {**spec["evaluate"], "sets": sets}})


def test_a_model_that_cannot_be_trained_is_refused_before_any_row_is_read(
    workplace: Workplace, spec: dict[str, Any], model_folder: Path
) -> None:
    def refused(name: str, files: dict[str, bytes]) -> str:
        uri = f"{workplace.root}/{name}"
        store = workplace.open_store(uri)
        for file, data in files.items():
            store.put(file, data)
        with pytest.raises(ConfigurationError) as error:
            run(workplace, {**spec, "model": {"uri": uri}})
        assert error.value.reason is Reason.INVALID_MODEL
        return error.value.message

    good = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    config = json.loads(good["config.json"])

    def changed(**values: Any) -> dict[str, bytes]:
        return {**good, "config.json": json.dumps({**config, **values}).encode()}

    weights = "model.safetensors"
    pickled = {n: d for n, d in good.items() if n != weights} | {"pytorch_model.bin": b"x"}
    assert "no model files" in refused("empty", {"readme.md": b"x"})
    assert "no .safetensors weights" in refused("pickled", pickled)
    assert "damaged" in refused("cut", {**good, weights: good[weights][:1000]})
    assert "no vision-language model" in refused(
        "text", {**good, "config.json": b'{"model_type": "llama"}'}
    )
    assert "own code" in refused("remote", changed(model_type="evil", auto_map={"AutoConfig": "e"}))
    without = {n: d for n, d in good.items() if not n.startswith(("tokenizer", "processor"))}
    assert "tokenizer" in refused("bare", without)


def test_lengths_that_cannot_fit_are_refused(workplace: Workplace, spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"maxPromptTokens 120 and evaluate.maxNewTokens"):
        run(workplace, {**spec, "data": {**spec["data"], "maxPromptTokens": 120}})


def test_a_source_without_objects_is_named(workplace: Workplace, spec: dict[str, Any]) -> None:
    uri = f"{workplace.root}/absent/*.parquet"
    with pytest.raises(ConfigurationError, match="no object matches") as error:
        run(workplace, {**spec, "data": {**spec["data"], "preferences": [{"uri": uri}]}})
    assert uri in error.value.message


def test_it_ends_on_sigterm_without_a_manifest(workplace: Workplace, spec: dict[str, Any]) -> None:
    stop = threading.Event()
    stop.set()
    config = workplace.config(spec, Stage.PREPARE)
    with pytest.raises(Interrupted):
        prepare.run(config, workplace.context(Stage.PREPARE, stop))
    done = run(workplace, spec)
    assert not done.cache_hit
    assert find(workplace.store, Stage.PREPARE, done.manifest.key) == done.manifest
