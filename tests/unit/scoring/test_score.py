# SPDX-License-Identifier: Apache-2.0
"""`r1 score` as a user runs it, against a front over HTTP."""

import argparse
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from r1reward_trainer.scoring import cli
from r1reward_trainer.scoring.batch import CHUNK_ROWS
from r1reward_trainer.scoring.places import Limits
from tests.unit.rollout.asking import eventually, in_background
from tests.unit.rollout.protocol_server import JOB_UID, TOKEN
from tests.unit.scoring.conftest import CLIENT_TOKEN, DIGEST, RULES, JudgeServer, Site
from tests.unit.scoring.served import served_config

ENVIRONMENT = {**os.environ, "PYTHONPATH": "operator:trainer_image", "OMP_NUM_THREADS": "1"}


def png() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((56, 56)).save(file, "PNG")
    return file.getvalue()


def pair(number: int, **fields: Any) -> dict[str, Any]:
    numbers = {"answer1": str(number % 7), "answer2": str(7 + number % 5)}
    return {"id": f"row-{number}", "question": "Which is larger?", **numbers, **fields}


def jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return path


class Runner:
    """Runs `r1 score` with the token of the fronts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "scores"
        self._token = folder / "token"
        self._token.write_text(CLIENT_TOKEN + "\n")

    def command(self, *arguments: str | Path) -> list[str]:
        given = [*map(str, arguments), "--output", str(self.output)]
        if "--token-file" not in given:
            given += ["--token-file", str(self._token)]
        return [sys.executable, "-m", "r1reward_trainer", "score", *given]

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=200
        )

    def score(self, *arguments: str | Path) -> dict[str, Any]:
        """The summary."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def lines(self) -> list[dict[str, Any]]:
        parts = sorted(self.output.glob("*-[0-9]*.jsonl"))
        return [json.loads(text) for part in parts for text in part.read_text().splitlines()]


@pytest.fixture
def r1(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_pairs_and_groups_get_verdicts_probabilities_rewards_and_ranks(site: Site, r1: Runner):
    (r1.folder / "beside.png").write_bytes(png())
    rows = [
        pair(1, images=["beside.png"], gold=1),
        {"question": "q", "answers": ["5", "9", "1"]},
    ]
    summary = r1.score(jsonl(r1.folder / "in.jsonl", rows), "--front", site.front(site.server()))
    one, group = r1.lines()
    assert (one["id"], one["line"], one["verdict"], one["weights"]) == ("row-1", 1, 2, DIGEST)
    assert 0 < one["comparisons"][0]["probability"] < 0.5
    assert group["id"] == f"{r1.folder}/in.jsonl:2"
    assert [s["rank"] for s in group["scores"]] == [2, 1, 3]
    assert [s["reward"] > 0 for s in group["scores"]] == [False, True, False]
    assert (summary["rows"], summary["comparisons"], summary["orderAgreement"]) == (2, 4, 1.0)
    assert json.loads((r1.output / "summary.json").read_text()) == summary


def test_parquet_with_images_inside_is_scored_in_the_order_of_its_rows(site: Site, r1: Runner):
    path = r1.folder / "in.parquet"
    rows = [pair(n, images=[{"bytes": png(), "path": None}]) for n in range(2 * CHUNK_ROWS + 3)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    summary = r1.score(path, "--front", site.front(site.server()))
    assert summary["rows"] == len(rows)
    assert [line["id"] for line in r1.lines()] == [row["id"] for row in rows]


def test_csv_with_images_beside_it_is_scored(site: Site, r1: Runner):
    (r1.folder / "x.png").write_bytes(png())
    path = r1.folder / "in.csv"
    path.write_text(
        'id,question,answer1,answer2,images\na,q,1,2,x.png\nb,q,2,1,"[""x.png"", ""x.png""]"\n'
    )
    server = site.server()
    summary = r1.score(path, "--front", site.front(server))
    assert (summary["rows"], summary["badRows"]) == (2, 0)
    assert [(line["id"], line["verdict"]) for line in r1.lines()] == [("a", 2), ("b", 1)]
    shown = [prompt.count(site.renderer.image_token_id) for prompt in server.generated]
    assert sorted(n for n in shown if n) == [1, 1, 2, 2]


def test_a_run_that_was_killed_goes_on_where_it_ended(site: Site, r1: Runner):
    asked: list[str] = []
    server = site.server(lambda one, two: asked.append(f"{one} {two}") or "no verdict")
    url = site.front(server)
    given = jsonl(r1.folder / "in.jsonl", [pair(n) for n in range(4 * CHUNK_ROWS)])
    r1.output.mkdir()
    (r1.output / ".run.json.part").touch()  # of one that was killed even sooner
    running = subprocess.Popen(r1.command(given, "--front", url), env=ENVIRONMENT)
    eventually(lambda: r1.output.exists() and len([*r1.output.glob("in-*.jsonl")]) >= 1, 60)
    running.send_signal(signal.SIGKILL)
    running.wait(20)
    kept = {path: path.stat().st_mtime_ns for path in r1.output.glob("in-*.jsonl")}
    assert 0 < len(kept) < 4
    # What it had asked last is still being answered to nobody.
    eventually(lambda: "in_flight 0.0" in httpx.get(f"{url}/metrics").text)
    before = len(asked)
    assert r1.score(given, "--front", url)["rows"] == 4 * CHUNK_ROWS
    assert len(asked) - before == 2 * (4 - len(kept)) * CHUNK_ROWS
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [line["id"] for line in r1.lines()] == [f"row-{n}" for n in range(4 * CHUNK_ROWS)]


def test_a_run_that_is_told_to_end_says_how_to_go_on(site: Site, r1: Runner):
    server = site.server()
    url = site.front(server)
    server.hold()
    given = jsonl(r1.folder / "in.jsonl", [pair(n) for n in range(3)])
    command = r1.command(given, "--front", url)
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as running:
        eventually(lambda: "in_flight 6.0" in httpx.get(f"{url}/metrics").text, 60)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=30)
    server.release()
    assert (running.returncode, "run the command again to go on" in said) == (143, True), said
    assert r1.score(given, "--front", url)["rows"] == 3


def test_files_are_spread_over_processes(site: Site, r1: Runner):
    for n in range(3):
        jsonl(r1.folder / f"in-{n}.jsonl", [pair(10 * n + i) for i in range(5)])
    url = site.front(site.server())
    summary = r1.score(r1.folder / "in-*.jsonl", "--front", url, "--processes", "2")
    assert summary["rows"] == 15
    assert sorted(line["id"] for line in r1.lines()) == sorted(
        f"row-{10 * n + i}" for n in range(3) for i in range(5)
    )


def test_a_process_that_fails_ends_the_run_with_its_reason(site: Site, r1: Runner):
    for n in range(2):
        jsonl(r1.folder / f"in-{n}.jsonl", [{"question": "q"}])
    url = site.front(site.server())
    done = r1.run(r1.folder / "in-*.jsonl", "--front", url, "--processes", "2")
    assert done.returncode == 78
    assert "neither answers nor answer1 is there; there are 'question'" in done.stderr


def test_bad_rows_are_put_aside_with_their_reason_as_far_as_allowed(site: Site, r1: Runner):
    rows = [
        pair(1),
        "{",
        {"question": "q", "answer1": "1"},
        pair(2, images=["absent.png"]),
        pair(3, images=["../token"]),
        pair(4, images=3),
        {"question": "", "answers": ["1", "2"]},
        {"question": "q" * 4000, "answers": ["1", "2"]},
        [1],
        pair(5),
    ]
    given = jsonl(r1.folder / "in.jsonl", rows)
    url = site.front(site.server())
    done = r1.run(given, "--front", url, "--max-bad-rows", "7")
    assert (done.returncode, "allows no more" in done.stderr) == (78, True)
    summary = r1.score(given, "--front", url, "--max-bad-rows", "8")
    assert (summary["rows"], summary["badRows"]) == (10, 8)
    errors = [line.get("error", "") for line in r1.lines()]
    for error, named in zip(
        errors,
        ["", "not-json", "answer2", "absent.png", "not a path below", "must be a list", "question",
         "maxPromptTokens", "instead of an object", ""],
        strict=True,
    ):  # fmt: skip
        assert named in error


def test_rows_that_the_model_refuses_are_put_aside_and_the_rest_is_scored(site: Site, r1: Runner):
    server = site.server()
    server.refused = "404"
    rows = [pair(n) for n in range(2 * CHUNK_ROWS)]
    rows[3]["answer2"] = "404"
    given = jsonl(r1.folder / "in.jsonl", rows)
    summary = r1.score(given, "--front", site.front(server), "--max-bad-rows", "1")
    assert (summary["rows"], summary["badRows"]) == (len(rows), 1)
    (bad,) = [line for line in r1.lines() if "error" in line]
    assert (bad["id"], bad["line"]) == ("row-3", 4)
    assert "answers 1 and 2: the model's server does not take their prompt" in bad["error"]
    assert "no words for it" in bad["error"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [("stuck", "has not answered in 3 s"), ("crashed", "fails with this request")],
)
def test_a_row_that_fails_again_and_again_is_put_aside_and_the_rest_is_scored(
    site: Site, r1: Runner, fault: str, told: str
):
    server = site.server()
    setattr(server, fault, "404")
    url = site.front(server, limits=Limits(deadline_seconds=3))
    rows = [pair(n) for n in range(CHUNK_ROWS + 4)]
    rows[3]["answer2"] = "404"
    given = jsonl(r1.folder / "in.jsonl", rows)
    summary = r1.score(given, "--front", url, "--max-bad-rows", "1", "--patience-seconds", "5")
    assert (summary["rows"], summary["badRows"]) == (len(rows), 1)
    (bad,) = [line for line in r1.lines() if "error" in line]
    assert (bad["id"], told in bad["error"], "(3 tries)" in bad["error"]) == ("row-3", True, True)


def test_bad_rows_of_an_earlier_run_count(site: Site, r1: Runner):
    rows = [*(pair(n) for n in range(CHUNK_ROWS - 1)), "{", "{", pair(1)]
    given = jsonl(r1.folder / "in.jsonl", rows)
    url = site.front(site.server())
    assert r1.score(given, "--front", url, "--max-bad-rows", "2")["badRows"] == 2
    (part,) = r1.output.glob("in-*-000001.jsonl")
    part.unlink()
    done = r1.run(given, "--front", url, "--max-bad-rows", "1")
    assert (done.returncode, "(1) allows no more" in done.stderr) == (78, True)


def test_a_front_that_is_full_or_starting_is_waited_for(site: Site, r1: Runner):
    server = site.server()
    server.folder = "/models/other"
    url = site.front(server, limits=Limits(in_flight=2), ready=False)
    given = jsonl(r1.folder / "in.jsonl", [pair(n) for n in range(4)])
    running = subprocess.Popen(
        r1.command(given, "--front", url), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    eventually(lambda: server.probes > 3)
    server.folder = "/models/base"
    out, _ = running.communicate(timeout=100)
    assert json.loads(out)["rows"] == 4


def test_a_front_that_stays_full_outlasts_the_patience_and_ends_the_run_at_last(
    site: Site, r1: Runner
):
    server = site.server()
    url = site.front(server, limits=Limits(in_flight=2))
    server.hold()
    body = {"question": "q", "answers": ["1", "2"]}
    headers = {"Authorization": f"Bearer {CLIENT_TOKEN}"}
    other = in_background(
        lambda: httpx.post(f"{url}/v1/score", json=body, headers=headers, timeout=100)
    )
    eventually(lambda: "in_flight 2.0" in httpx.get(f"{url}/metrics").text)
    given = jsonl(r1.folder / "in.jsonl", [pair(1)])
    flags = ("--front", url, "--patience-seconds", "0.1")
    done = r1.run(given, *flags, "--full-seconds", "3")
    assert (done.returncode, "no scores for 3 s" in done.stderr) == (75, True), done.stderr
    assert "answers 429" in done.stderr
    server.release()
    assert other.result(30).status_code == 200
    assert r1.score(given, *flags)["rows"] == 1


def test_a_model_that_stays_out_ends_the_run_and_keeps_what_is_done(site: Site, r1: Runner):
    server = site.server()
    server.folder = "/models/other"
    url = site.front(server, ready=False)
    given = jsonl(r1.folder / "in.jsonl", [pair(1)])
    done = r1.run(given, "--front", url, "--patience-seconds", "1")
    assert done.returncode == 75
    assert "no scores for 1 s" in done.stderr
    assert "was started with /models/other" in done.stderr


def test_an_output_of_other_files_or_weights_is_not_mixed(site: Site, r1: Runner):
    url = site.front(site.server())
    given = jsonl(r1.folder / "in.jsonl", [pair(1)])
    r1.score(given, "--front", url)
    jsonl(given, [pair(2)])
    done = r1.run(given, "--front", url)
    assert (done.returncode, "name another one" in done.stderr) == (78, True)
    warmer = dataclasses.replace(RULES, temperature=2.0)
    jsonl(given, [pair(1)])
    r1.output = r1.folder / "calibrated"
    r1.score(given, "--front", url)
    done = r1.run(given, "--front", site.front(site.server(), rules=warmer))
    assert (done.returncode, "another temperature" in done.stderr) == (78, True)
    r1.output = r1.folder  # holds other things
    done = r1.run(given, "--front", url)
    assert (done.returncode, "is not empty" in done.stderr) == (78, True)


def wrong_token(r1: Runner, url: str) -> list[str | Path]:
    (r1.folder / "wrong").write_text("wrong")
    return ["--front", url, "--token-file", r1.folder / "wrong"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (wrong_token, "answers 401"),
        (lambda r1, url: ["--front", "localhost:80"], "must look like http://host:port"),
        (lambda r1, url: ["--front", "http://h:abc"], "must look like http://host:port"),
        (lambda r1, url: ["--front", "http://[::1"], "must look like http://host:port"),
        (lambda r1, url: ["--vllm", url], "--vllm needs --run-config"),
        (lambda r1, url: ["--front", url, "--temperature", "2"], "--temperature: of --vllm alone"),
        (lambda r1, url: ["--front", url, "--token-file", r1.folder / "no"], "--token-file"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(
    site: Site, r1: Runner, flags: Callable[[Runner, str], list[str | Path]], named: str
):
    given = jsonl(r1.folder / "in.jsonl", [pair(1)])
    done = r1.run(given, *flags(r1, site.front(site.server())))
    assert (done.returncode, named in done.stderr) == (78, True), done.stderr
    nothing = r1.run(r1.folder / "absent.jsonl", *flags(r1, "http://localhost:1"))
    assert nothing.returncode == 78


@pytest.mark.parametrize(
    "flags",
    [
        ["score", "in", "--output", "o", "--front", "f", "--token-file", "t", "--max-bad-rows=-1"],
        ["scoring-front", "--in-flight", "0"],
        ["scoring-front", "--body-bytes", "0"],
        ["scoring-front", "--deadline-seconds", "nan"],
    ],
)
def test_a_limit_that_is_none_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]):
    parser = argparse.ArgumentParser()
    cli.add_verbs(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(flags)
    assert "must be" in capsys.readouterr().err


def run_config(folder: Path) -> Path:
    """What serve-manifest gives to the front of the stub's pod."""
    path = folder / "run.json"
    template = "||{question}||{answer1}||{answer2}||"
    path.write_text(json.dumps(served_config(JOB_UID, DIGEST, template, (784, 3136))))
    return path


def itself(site: Site, r1: Runner, server: JudgeServer) -> list[str | Path]:
    """The flags that ask a server without a front."""
    (r1.folder / "server-token").write_text(TOKEN)
    site.renderer.processor.save_pretrained(r1.folder / "model")
    return [
        *("--vllm", f"http://{server.address}:{server.port}"),
        *("--run-config", run_config(r1.folder)),
        *("--model", r1.folder / "model"),
        *("--token-file", r1.folder / "server-token"),
    ]


def test_vllm_itself_may_be_asked(site: Site, r1: Runner):
    server = site.server()
    server.refused = "404"
    rows = [pair(1), pair(2), pair(3, images=["GIF89abc"]), pair(4, answer2="404")]
    given = jsonl(r1.folder / "in.jsonl", rows)
    summary = r1.score(given, "--max-bad-rows", "2", *itself(site, r1, server))
    assert (summary["rows"], summary["badRows"], summary["weights"]) == (4, 2, DIGEST)
    *scored, bad, refused = r1.lines()
    assert [line["verdict"] for line in scored] == [2, 2]
    assert bad["error"].startswith("images.0: ")
    assert refused["error"].startswith("answers 1 and 2: the model's server does not take")


def test_vllm_with_another_models_processor_costs_no_row(site: Site, r1: Runner):
    server = site.server()
    server.misread = "Ready?"
    given = jsonl(r1.folder / "in.jsonl", [pair(1)])
    done = r1.run(given, "--max-bad-rows", "1", *itself(site, r1, server))
    assert (done.returncode, "is not of the model that vLLM serves" in done.stderr) == (78, True)
    assert r1.lines() == []
