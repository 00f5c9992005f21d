# SPDX-License-Identifier: Apache-2.0
"""`r1 data validate` on files of this machine."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1reward_api.reasons import Reason
from r1reward_trainer.data.rows import Row, write_rows
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.validation.command import add_parser, options
from r1reward_trainer.validation.text import readable
from r1reward_trainer.validation.validate import Options, validate, verdict
from tests.digits.model import build_processor
from tests.unit.data.images import png

ROOT = Path(__file__).parents[3]
HEADER = "prompt,good,bad,file\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pairs as CSV beside their pictures; the third has no picture."""
    (tmp_path / "pictures").mkdir()
    for number in (0, 1, 3):
        (tmp_path / f"pictures/{number}.png").write_bytes(png(number))
    lines = [f"What is {n}?,a,b,/home/me/pictures/{n}.png\n" for n in range(4)]
    (tmp_path / "pairs.csv").write_text(HEADER + "".join(lines))
    return tmp_path


def r1(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = ":".join(str(ROOT / name) for name in ("operator", "trainer_image"))
    return subprocess.run(
        [sys.executable, "-m", "r1reward_trainer", "data", "validate", *arguments],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


MAPPING = "question=prompt,chosen=good,rejected=bad,images=file"


def test_a_person_reads_what_is_wrong_with_which_line(folder: Path) -> None:
    done = r1(str(folder / "*.csv"), "--columns", MAPPING)
    assert done.returncode == 1, done.stderr
    assert "rows           3 good, 1 bad (1 image-missing)" in done.stdout
    assert f"bad row        {folder}/pairs.csv line 4: image-missing" in done.stdout
    assert "(images is file in the file)" in done.stdout
    assert "gold           1 in 3 rows, 2 in 0" in done.stdout
    assert done.stdout.endswith("result         NOT GOOD: 1 rows are bad, --max-bad-rows is 0\n")


def test_a_program_reads_json_and_the_exit_code(folder: Path) -> None:
    kept = folder / "bad.jsonl"
    done = r1(
        f"{folder}/pairs.csv", "--columns", MAPPING, "--json", "--max-bad-rows", "1",
        "--quarantine", str(kept),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["badRows"], report["images"]) == (3, 1, 3)
    assert report["imageSizes"]["width"]["max"] == 96
    (bad,) = [json.loads(line) for line in kept.read_text().splitlines()]
    assert (bad["line"], bad["reason"]) == (4, "image-missing")


def test_what_cannot_be_read_at_all_is_told_in_a_line(folder: Path) -> None:
    done = r1(str(folder / "absent.csv"))
    assert done.returncode == 78
    assert "no object matches" in done.stderr
    assert "Traceback" not in done.stderr


def test_rows_are_compared_with_evaluation_sets(folder: Path) -> None:
    bench = [{"id": "b1", "prompt": "Which?", "chosen": "x", "rejected": "y", "image": "1.png"}]
    (folder / "pictures/bench.jsonl").write_text("\n".join(map(json.dumps, bench)))
    rows = [Row(f"r{n}", "q", "one", "two", 1 + n % 2, (png(n),), "") for n in range(4)]
    write_rows(folder / "own", rows, Row)
    report = validate(
        Options(
            uris=[f"{folder}/own/"],
            sets={"vl": (f"{folder}/pictures/*.jsonl", "VLRewardBenchRelease")},
        )
    )
    assert report["contamination"]["sets"]["vl"]["examples"] == [
        {"row": "r1", "set": "vl", "item": "b1", "shared": "image", "likeness": 1.0}
    ]
    assert verdict(report) is None
    text = readable(report)
    assert "against vl: 1 of its 1 rows are given away by 1 rows through an image" in text
    assert "r1 and b1: image, 100 % alike" in text


def test_rows_with_fewer_frames_than_their_videos_have_are_told_with_the_remedy(
    tmp_path: Path,
) -> None:
    for number in range(3):
        frame = tmp_path / f"clip/frame_{number}.png"
        frame.parent.mkdir(exist_ok=True)
        frame.write_bytes(png(number))
    (tmp_path / "one.png").write_bytes(png(9))
    pair = {"prompt": "Which?", "chosen": "x", "rejected": "y"}
    lines = [{"id": "v", "video": "clip", **pair}, {"id": "i", "image": "one.png", **pair}]
    rows = tmp_path / "bench.jsonl"
    rows.write_text("\n".join(map(json.dumps, lines)))
    bench = (str(rows), "MMRLHFRewardBench")
    for given in (
        Options([bench[0]], format="MMRLHFRewardBench"),
        Options([bench[0]], format="MMRLHFRewardBench", sets={"mm": bench}),
    ):
        report = validate(given)
        assert report["fewerFrames"] == 1
        told = [w for w in report["warnings"] if "fewer frames" in w]
        assert [w.partition(" are judged")[0] for w in told] == ["1 rows", "1 rows of mm"][
            : 1 + len(given.sets)
        ]
        assert all("--max-images" in w and "serving.imagesPerPrompt" in w for w in told)
    enough = validate(Options([bench[0]], format="MMRLHFRewardBench", max_images=3))
    assert (enough["fewerFrames"], enough["imageSizes"]["perRow"]["max"]) == (0, 3)
    assert not any("frames" in warning for warning in enough["warnings"])


def test_a_row_has_no_more_images_than_a_runtime_takes_unless_it_is_said_to(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path, [Row("a", "q", "one", "two", 1, (png(0), png(1)), "")], Row)
    report = validate(Options(uris=[f"{tmp_path}/*.parquet"]))
    (example,) = report["badRowExamples"]
    assert "serving.imagesPerPrompt is 1" in example["detail"]
    assert validate(Options(uris=[f"{tmp_path}/*.parquet"], max_images=2))["badRows"] == 0


def test_lengths_are_counted_in_a_models_tokens(tmp_path: Path) -> None:
    build_processor().save_pretrained(tmp_path / "model")
    write_rows(tmp_path, [Row("a", "q", "zero", "two two", 1, (png(0),), "")], Row)
    report = validate(Options(uris=[f"{tmp_path}/*.parquet"], model=str(tmp_path / "model")))
    assert report["tokens"]["answer"]["max"] > report["tokens"]["answer"]["min"] > 0
    with pytest.raises(ConfigurationError, match="no fast tokenizer") as error:
        validate(Options(uris=[f"{tmp_path}/*.parquet"], model=str(tmp_path / "none")))
    assert error.value.reason is Reason.INVALID_MODEL


def test_what_stands_in_the_data_cannot_steer_the_terminal(tmp_path: Path) -> None:
    row = Row("\x1b[2J", "q", "a", "b", 1, (png(0),), "")
    write_rows(tmp_path, [row, row], Row)
    text = readable(validate(Options(uris=[f"{tmp_path}/*.parquet"])))
    assert "\x1b" not in text
    assert "?[2J of ?[2J (exact)" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"columns": "question"}, "write it as ours=theirs"),
        ({"columns": "asked=prompt"}, "the names are question, answer1"),
        ({"set": ["x.parquet"]}, "write it as NAME=URI"),
        ({"set": ["vl=x.parquet,VLBench"]}, "VLBench is no format; there are Plain"),
        ({"columns": "question=a,question=b"}, "--columns names question twice"),
        ({"set": ["a=x.csv", "a=y.csv"]}, "--set names a twice"),
    ],
)
def test_a_wrong_argument_is_named_with_the_remedy(arguments: dict[str, Any], words: str) -> None:
    import argparse

    given = {
        "uri": ["x"], "format": "Plain", "columns": None, "image_prefix": None, "set": [],
        "model": None, "max_images": 1, "max_rows": None, "max_bad_rows": 0, "quarantine": None,
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match=words):
        options(argparse.Namespace(**{**given, **arguments}))


@pytest.mark.parametrize("place", ["no/such/folder.jsonl", "."])
def test_a_quarantine_that_cannot_be_written_is_told_before_anything_is_read(
    folder: Path, place: str
) -> None:
    given = Options([str(folder / "*.csv")], quarantine=str(folder / place))
    with pytest.raises(ConfigurationError, match=r"--quarantine .* cannot be written"):
        validate(given)


def job_of(data: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "R1RewardJob", "spec": {"data": data}}


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(arguments)


def test_a_prompt_that_a_job_calls_too_long_is_a_bad_row(tmp_path: Path) -> None:
    processor = build_processor()
    processor.save_pretrained(tmp_path / "model")
    processor.tokenizer.save_pretrained(tmp_path / "tokenizer")
    rows = [
        Row("fits", "q", "one", "two", 1, (png(0),), ""),
        Row("long", "q" * 400, "one", "two", 2, (png(1),), ""),
    ]
    write_rows(tmp_path, rows, Row)
    data = {"preferences": [{"uri": "s3://data/x.parquet"}], "maxPromptTokens": 400}
    data |= {"promptTemplate": "{question} {answer1} {answer2}", "minPixels": 784}
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps(job_of(data)))
    done = r1(f"{tmp_path}/*.parquet", "--job", str(job), "--model", str(tmp_path / "model"))
    assert done.returncode == 1, done.stderr
    assert "rows           1 good, 1 bad (1 prompt-too-long)" in done.stdout
    assert "data.maxPromptTokens allows 400" in done.stdout

    for manifest, model, words in (
        ({"spec": {"data": data}}, "model", "is no manifest of one R1RewardJob"),
        ({"kind": "R1RewardJob", "spec": None}, "model", "is no manifest of one R1RewardJob"),
        (job_of(data | {"maxPromptTokens": 1}), "model", "spec.data.maxPromptTokens"),
        (job_of(data), None, "need --model"),
        (job_of(data), "tokenizer", "--model"),
        (job_of(data), "absent", "--model"),
    ):
        job.write_text(json.dumps(manifest))
        given = [] if model is None else ["--model", str(tmp_path / model)]
        arguments = ["data", "validate", f"{tmp_path}/*.parquet", "--job", str(job), *given]
        with pytest.raises(ConfigurationError, match=words):
            validate(options(parsed(arguments)))
