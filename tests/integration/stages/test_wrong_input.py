# SPDX-License-Identifier: Apache-2.0
"""Wrong models and wrong data: how prepare ends, what it says, and what is left in S3."""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
)

from r1reward_api.reasons import Reason
from r1reward_api.wire.termination import FailureClass
from r1reward_trainer.data.rows import Row, open_annotated, open_rows, write_rows
from r1reward_trainer.outcome import ConfigurationError
from tests.digits.model import build_processor
from tests.integration.stages.harness import Workplace
from tests.integration.stages.preparing import ROWS, output, put_jsonl, record, run

Spec = dict[str, Any]


def left(workplace: Workplace) -> list[str]:
    """Last parts of the keys that the job has left in the namespace's storage, but for its claim
    of its name."""
    keys = [found.key for found in workplace.store.list("")]
    keys.remove("jobs/job/claim.json")
    own = f"/runs/{workplace.uid}/attempt-1/"
    assert all(own in key for key in keys), "only below the job's own UID"
    return [key.split(own)[1] for key in keys]


def with_data(spec: Spec, uri: str, **data: Any) -> Spec:
    """The spec with other preference data."""
    return {**spec, "data": {**spec["data"], "preferences": [{"uri": uri}], **data}}


def refusal(workplace: Workplace, spec: Spec, reason: Reason) -> str:
    """Runs prepare, which must end as final configuration error. Returns its message."""
    with pytest.raises(ConfigurationError) as error:
        run(workplace, spec)
    assert error.value.failure_class is FailureClass.CONFIGURATION
    assert error.value.reason is reason
    return error.value.message


def put_parquet(workplace: Workplace, name: str, table: pa.Table) -> str:
    """Puts a table into S3. Returns its URI."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    workplace.open_store(workplace.root).put(name, buffer.getvalue())
    return f"{workplace.root}/{name}"


def quarantine(workplace: Workplace, message: str) -> list[dict[str, Any]]:
    """The bad rows in the file that a message names."""
    place = message.split("All are in ")[1].split(": correct")[0]
    folder, _, name = place.rpartition("/")
    lines = workplace.open_store(folder).get(name).splitlines()
    return [json.loads(line) for line in lines]


# --- data that is not there, or is something else


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent/*.parquet", None, ["data.preferences", "no object matches", "`*` stands for"]),
        ("empty/x.jsonl", b"", ["data.preferences", "no rows in 1 files", "write rows"]),
        ("wrong/x.tsv", b"id\tquestion\n1\tx\n", ["none of .parquet, .jsonl", "the suffix"]),
        ("broken/x.parquet", b"PAR1 no more", ["cannot be read as Parquet", "write it anew"]),
    ],
)
def test_data_that_is_no_data_is_named_and_nothing_is_left(
    workplace: Workplace, spec: Spec, name: str, content: bytes | None, words: list[str]
) -> None:
    if content is not None:
        workplace.open_store(workplace.root).put(name, content)
    uri = f"{workplace.root}/{name}"
    message = refusal(workplace, with_data(spec, uri), Reason.INVALID_DATA)
    assert [w for w in [*words, uri] if w not in message] == []
    assert left(workplace) == []


def test_a_table_without_rows_is_named(workplace: Workplace, spec: Spec) -> None:
    write_rows(workplace.folder / "none", [], Row)
    table = pq.read_table(workplace.folder / "none")
    uri = put_parquet(workplace, "none/x.parquet", table)
    message = refusal(workplace, with_data(spec, uri), Reason.INVALID_DATA)
    assert f"no rows in 1 files, of which the first is {uri}" in message
    assert left(workplace) == []


def test_a_table_of_another_schema_is_bad_row_by_row_and_its_columns_are_told(
    workplace: Workplace, spec: Spec
) -> None:
    table = pa.table({"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["e", "f"]})
    uri = put_parquet(workplace, "other/x.parquet", table)
    message = refusal(workplace, with_data(spec, uri, maxBadRows=9), Reason.INVALID_DATA)
    assert "data.preferences: 2 of 2 rows are bad (2 missing-field)" in message
    assert "correct them: none is good" in message
    assert (
        "no column id, question, answer1, answer2, gold, images; its columns are prompt, chosen, "
        "rejected"
    ) in message
    assert [(b["line"], b["reason"]) for b in quarantine(workplace, message)] == [
        (1, "missing-field"),
        (2, "missing-field"),
    ]
    assert left(workplace) == ["quality/bad-rows.jsonl"]


def test_json_of_another_schema_is_told_by_its_keys(workplace: Workplace, spec: Spec) -> None:
    put_jsonl(workplace, "other/x.jsonl", [{"prompt": "a", "chosen": "c"}])
    uri = f"{workplace.root}/other/x.jsonl"
    message = refusal(workplace, with_data(spec, uri), Reason.INVALID_DATA)
    assert f"{uri} line 1: id is missing; there are 'prompt, chosen'" in message


# --- rows that are not as they should be


def png(size: tuple[int, int], color: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A few bytes that say they are a huge image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def jpeg_with_damaged_exif() -> bytes:
    """An orientation, and beside it a tag whose type does not fit its value."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0128] = 6, 2
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40)).save(buffer, "JPEG", exif=exif)
    data = buffer.getvalue()
    damaged = data.replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x07")
    assert damaged != data
    return damaged


def with_image(row: Row, *images: bytes) -> dict[str, Any]:
    return record(replace(row, images=images))


HOSTILE: Mapping[str, tuple[Any, str, str]] = {
    "no image": (with_image(ROWS[4], b"GIF89a"), "image-invalid", "no PNG, JPEG or WebP"),
    "half an image": (with_image(ROWS[4], ROWS[4].images[0][:60]), "image-invalid", "decoded"),
    "damaged EXIF": (with_image(ROWS[4], jpeg_with_damaged_exif()), "image-invalid", "decoded"),
    "a bomb": (with_image(ROWS[4], png_claiming(9000, 9000)), "image-invalid", "9000 × 9000"),
    "a larger bomb": (
        with_image(ROWS[4], png_claiming(60_000, 60_000)),
        "image-invalid",
        "decoded",
    ),
    "a long line": (with_image(ROWS[4], png((1, 400_000))), "image-invalid", "reduce it"),
    "a name too long": (
        record(ROWS[4], images=["x" * 256 + ".png"]),
        "image-missing",
        "not a path",
    ),
    "a file as folder": (record(ROWS[4], images=["rows.jsonl/1.png"]), "image-missing", "no s3://"),
    "text of 100 kB": (record(ROWS[4], answer1="x" * 100_000), "prompt-too-long", "tokens"),
    "more text": (record(ROWS[4], answer1="x" * 100_001), "text-too-long", "limit 100000"),
    "two verdicts": (record(ROWS[4], gold=[1, 2]), "wrong-type", "must be 1 or 2"),
    "a list": ([1, 2], "not-json", "list instead of an object"),
    "an empty line": ("", "not-json", "the line is empty"),
    "half a line": ('{"id": 1', "not-json", "JSONDecodeError"),
}
"""By what it is: the record, its reason, and words of the detail."""

GOOD = [
    *(record(row, gold=1) for row in ROWS[:12]),
    record(ROWS[12], id=ROWS[0].id, gold=1),
    with_image(replace(ROWS[16], gold=1), png((1, 1), 7)),
    with_image(replace(ROWS[20], gold=1), png((3, 300), 9)),
    with_image(replace(ROWS[24], gold=1), png((1500, 1200), 9)),
]
"""Rows that are odd but usable: one label, an id that comes twice, a pixel, a line, a large
image."""


@pytest.fixture
def odd(workplace: Workplace, spec: Spec) -> Spec:
    """A job over odd and hostile rows, which allows all of the hostile ones."""
    hostile = [made for made, _, _ in HOSTILE.values()]
    put_jsonl(workplace, "odd/rows.jsonl", [*hostile, *GOOD])
    return with_data(spec, f"{workplace.root}/odd/", maxBadRows=len(HOSTILE))


def test_hostile_rows_are_put_aside_with_line_and_reason_and_the_others_are_all_kept(
    workplace: Workplace, odd: Spec
) -> None:
    manifest = run(workplace, odd).manifest
    quality = output(workplace, manifest, "quality")
    bad = [json.loads(line) for line in (quality / "bad-rows.jsonl").read_text().splitlines()]
    wanted = [(n, reason) for n, (_, reason, _) in enumerate(HOSTILE.values(), 1)]
    assert [(b["line"], b["reason"]) for b in bad] == wanted
    told = dict(zip(HOSTILE, (b["detail"] for b in bad), strict=True))
    assert {n: told[n] for n, (_, _, words) in HOSTILE.items() if words not in told[n]} == {}

    train = list(open_rows(output(workplace, manifest, "train")))
    heldout = list(open_rows(output(workplace, manifest, "heldout")))
    kept = sorted(row.id for row in train + heldout)
    assert kept == sorted(made["id"] for made in GOOD), "a repeated id is two rows"
    golds = [row.gold for row in train]
    assert abs(golds.count(1) - golds.count(2)) <= 1, "balanced, though all were 1"
    report = json.loads((quality / "report.json").read_text())
    assert (report["rows"], report["badRows"]) == (len(GOOD), len(HOSTILE))
    assert (report["allOneLabel"], report["repeatedIds"]) == (True, 1)
    assert report["repeatedIdExamples"] == [ROWS[0].id]
    assert report["warnings"][0].startswith("gold is 1 in every row as read")


def test_one_bad_row_too_many_ends_it_and_what_was_found_is_kept_for_the_next_try(
    workplace: Workplace, odd: Spec
) -> None:
    odd["data"]["maxBadRows"] = len(HOSTILE) - 1
    message = refusal(workplace, odd, Reason.INVALID_DATA)
    assert f"{len(HOSTILE)} of {len(HOSTILE) + len(GOOD)} rows are bad (6 image-invalid" in message
    assert f"data.maxBadRows is {len(HOSTILE) - 1}" in message
    assert "correct them, or raise data.maxBadRows" in message
    assert len(quarantine(workplace, message)) == len(HOSTILE)
    assert left(workplace) == ["quality/bad-rows.jsonl"]

    odd["data"]["maxBadRows"] = len(HOSTILE)
    assert run(workplace, odd).manifest.summary["badRows"] == str(len(HOSTILE))


def test_the_remedy_is_said_before_examples_that_may_be_cut(
    workplace: Workplace, spec: Spec
) -> None:
    name = "/".join(["x" * 200] * 2)
    long = [record(ROWS[0], images=[f"{name}/{n}.png"]) for n in range(3)]
    put_jsonl(workplace, "long/rows.jsonl", [record(ROWS[0]), *long])
    uri = f"{workplace.root}/long/rows.jsonl"
    message = refusal(workplace, with_data(spec, uri), Reason.INVALID_DATA)
    assert message.index("or raise data.maxBadRows") < message.index("First: ")
    assert len(message) < 1400, "a termination message takes no more"


def test_rows_about_one_image_leave_nothing_to_hold_out(workplace: Workplace, spec: Spec) -> None:
    put_jsonl(workplace, "one/rows.jsonl", [record(row) for row in ROWS[:4]])
    uri = f"{workplace.root}/one/rows.jsonl"
    message = refusal(workplace, with_data(spec, uri), Reason.INVALID_DATA)
    assert message.startswith("data.holdout: 4 good rows hang together by shared images")
    assert "at least two rows with different images are needed" in message
    assert left(workplace) == []


# --- lengths


def test_a_limit_below_every_prompt_is_told_with_both_numbers(
    workplace: Workplace, spec: Spec
) -> None:
    spec["data"]["maxPromptTokens"] = 16
    message = refusal(workplace, spec, Reason.INVALID_DATA)
    assert "80 of 80 rows are bad (80 prompt-too-long)" in message
    assert "data.maxPromptTokens allows 16" in message
    assert left(workplace) == ["quality/bad-rows.jsonl"]


@pytest.mark.parametrize(
    ("field", "section"),
    [
        ("evaluate.maxNewTokens", {"evaluate": {"maxNewTokens": 65}}),
        ("rl.sampling.maxNewTokens", {"rl": {"rows": "All", "sampling": {"maxNewTokens": 65}}}),
    ],
)
def test_prompt_and_answer_that_do_not_fit_are_refused_before_anything_is_read(
    workplace: Workplace, spec: Spec, field: str, section: Spec
) -> None:
    message = refusal(workplace, {**spec, **section}, Reason.INVALID_SPEC)
    assert f"data.maxPromptTokens 64 and {field} 65 together are more than" in message
    assert "serving.maxModelLength 128; lower one of them" in message
    assert left(workplace) == []


def chains_of(rows: list[Row], think: str = "seen") -> list[dict[str, Any]]:
    return [record(r, response=f"<think>{think}</think><answer>{r.gold}</answer>") for r in rows]


def test_an_own_chain_that_does_not_fit_behind_its_prompt_is_a_bad_row(
    workplace: Workplace, spec: Spec
) -> None:
    put_jsonl(workplace, "chains/own.jsonl", [*chains_of(ROWS), *chains_of(ROWS[:1], "é" * 120)])
    spec["sft"] = {"chains": f"{workplace.root}/chains/own.jsonl"}
    message = refusal(workplace, spec, Reason.INVALID_DATA)
    assert "sft.chains: 1 of 81 rows are bad (1 response-too-long)" in message
    assert "the runtime's serving.maxModelLength is 128" in message

    spec["data"]["maxBadRows"] = 1
    chains = open_annotated(output(workplace, run(workplace, spec).manifest, "chains"))
    assert len(chains) == 64


def test_chains_that_are_all_about_held_out_images_are_refused(
    workplace: Workplace, spec: Spec
) -> None:
    heldout = list(open_rows(output(workplace, run(workplace, spec).manifest, "heldout")))
    put_jsonl(workplace, "chains/own.jsonl", chains_of(heldout))
    other = Workplace(workplace.environ, workplace.folder, f"{workplace.root}/other")
    spec["sft"] = {"chains": f"{workplace.root}/chains/own.jsonl"}
    message = refusal(other, spec, Reason.INVALID_DATA)
    assert "sft.chains: none of 16 good rows is about a training image" in message
    assert "lower data.holdout.fraction" in message
    assert left(other) == []


# --- models


def test_a_model_in_no_bucket_or_at_no_prefix_is_named_and_nothing_is_left(
    workplace: Workplace, spec: Spec
) -> None:
    for uri, reason, words in (
        ("s3://no-such-bucket/base", Reason.STORAGE_DENIED, "NoSuchBucket"),
        (f"{workplace.root}/nothing", Reason.INVALID_MODEL, "the folder that holds config.json"),
    ):
        message = refusal(workplace, {**spec, "model": {"uri": uri}}, reason)
        assert uri in message
        assert words in message
    assert left(workplace) == []


def test_a_vision_language_model_of_another_family_is_refused_before_a_gpu_is_held(
    workplace: Workplace, spec: Spec, model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "llava"
    text = LlamaConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=2)
    vision = CLIPVisionConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=2)
    LlavaConfig(text_config=text, vision_config=vision).save_pretrained(folder)
    processor = build_processor()
    processor.tokenizer.add_tokens(["<image>"], special_tokens=True)
    LlavaProcessor(
        CLIPImageProcessor(), processor.tokenizer, patch_size=14, chat_template="{{ messages }}"
    ).save_pretrained(folder)
    uri = f"{workplace.root}/llava"
    store = workplace.open_store(uri)
    for file in [*folder.iterdir(), model_folder / "model.safetensors"]:
        store.put_file(file, file.name)
    message = refusal(workplace, {**spec, "model": {"uri": uri}}, Reason.INVALID_MODEL)
    assert f"spec.model.uri {uri}: its processor makes no prompts as Qwen2.5-VL's does" in message
    assert "give a model of that family" in message
    assert left(workplace) == []


def test_a_runtime_longer_than_the_model_is_refused(
    workplace: Workplace, spec: Spec, model_folder: Path
) -> None:
    config = json.loads((model_folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 100
    uri = spec["model"]["uri"]
    workplace.open_store(uri).put("config.json", json.dumps(config).encode())
    message = refusal(workplace, spec, Reason.INVALID_MODEL)
    assert f"serving.maxModelLength 128 is more than the 100 positions of spec.model.uri {uri}" in (
        message
    )
    assert left(workplace) == []
