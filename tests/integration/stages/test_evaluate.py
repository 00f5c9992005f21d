# SPDX-License-Identifier: Apache-2.0
"""evaluate against a real S3 server and a server that speaks the protocol."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import RunConfig, Services
from r1reward_trainer.data.rows import Row, write_rows
from r1reward_trainer.evaluation import session
from r1reward_trainer.evaluation.judging import vote_seed
from r1reward_trainer.evaluation.predictions import GREEDY, ORDERS
from r1reward_trainer.outcome import (
    ConfigurationError,
    InfrastructureError,
    Interrupted,
    Outcome,
)
from r1reward_trainer.render import Renderer
from r1reward_trainer.stages import evaluate, prepare
from r1reward_trainer.storage.outputs import find, publish, upload_output
from tests.digits.model import build_model
from tests.digits.rows import TEMPLATE, preference_rows
from tests.faulty_way import Fault, Request, faulty_way
from tests.integration.stages.digits_server import DigitsServer
from tests.integration.stages.harness import Killed, Workplace, die
from tests.unit.rollout.protocol_server import TOKEN, event_loop

ROWS = preference_rows()[:80]
"""20 images, four rows each; the rows of 4 images are held out."""


@dataclass
class Chain:
    """Finished prepare and rl stages, and a server."""

    workplace: Workplace
    spec: dict[str, Any]
    known: dict[Stage, StageManifest]
    server: DigitsServer

    def config(self, attempt: int = 1, stage: Stage = Stage.EVALUATE) -> RunConfig:
        services = Services(rollout_host="127.0.0.1", rollout_port=self.server.port)
        config = self.workplace.config(self.spec, stage, self.known, attempt)
        return config.model_copy(update={"services": services})

    def run(self, attempt: int = 1, stop: threading.Event | None = None) -> Outcome:
        context = self.workplace.context(Stage.EVALUATE, stop)
        return evaluate.run(self.config(attempt), replace(context, token=TOKEN))

    def read(self, manifest: StageManifest, output: str, name: str) -> bytes:
        place = manifest.outputs[output].path
        return self.workplace.store.get(f"stages/evaluate/{manifest.key}/{place}/{name}")


@pytest.fixture
def chain(workplace: Workplace, model_uri: str, tmp_path: Path) -> Iterator[Chain]:
    write_rows(tmp_path / "rows", ROWS, Row)
    workplace.open_store(f"{workplace.root}/rows").put_file(
        tmp_path / "rows/part-00000.parquet", "part-00000.parquet"
    )
    spec = {
        "runtimeRef": {"name": "cpu"},
        "model": {"uri": model_uri},
        "data": {
            "preferences": [{"uri": f"{workplace.root}/rows/*.parquet"}],
            "promptTemplate": TEMPLATE,
            "minPixels": 784,
            "maxPixels": 3136,
            "maxPromptTokens": 64,
            "holdout": {"fraction": 0.2},
        },
        "rl": {"rows": "All", "sampling": {"maxNewTokens": 32}},
        "evaluate": {"maxNewTokens": 32, "votes": [1, 3], "bootstrapSamples": 200},
    }
    prepared = prepare.run(
        workplace.config(spec, Stage.PREPARE), workplace.context(Stage.PREPARE)
    ).manifest
    known = {Stage.PREPARE: prepared}
    known[Stage.RL] = trained(workplace, workplace.config(spec, Stage.RL, known), tmp_path)
    with event_loop() as loop:
        config = workplace.config(spec, Stage.EVALUATE, known)
        renderer = Renderer.from_folder(tmp_path / "rl", config.spec.data)
        server = DigitsServer(loop, renderer, workplace.uid)
        server.start()
        yield Chain(workplace, spec, known, server)
        server.kill()


def trained(workplace: Workplace, config: RunConfig, folder: Path) -> StageManifest:
    """What the rl stage would leave."""
    build_model(folder / "rl", seed=1)
    (folder / "metrics").mkdir()
    lines = [
        json.dumps({"step": n, "metrics": {"reward/mean": n / 10, "loss": 1 / n}})
        for n in range(1, 9)
    ]
    (folder / "metrics/metrics.jsonl").write_text("\n".join(lines))
    outputs = {
        name: upload_output(workplace.store, config, name, folder / of)
        for name, of in (("weights", "rl"), ("metrics", "metrics"))
    }
    return publish(workplace.store, config, outputs, {"rlSteps": "8"})[0]


def test_every_model_is_loaded_in_turn_and_judges_every_row_in_both_orders(chain: Chain):
    outcome = chain.run()
    manifest = outcome.manifest
    assert not outcome.cache_hit
    assert manifest.summary == {
        "accuracy": "1.000 ± 0.000",
        "accuracy.base": "0.500 ± 0.000",
        "accuracy.rl": "1.000 ± 0.000",
        "votes": "@3 1.000 ± 0.000",
    }
    predictions = pq.read_table(
        io.BytesIO(chain.read(manifest, "predictions", "predictions.parquet"))
    )
    # Every judge repeats itself here, so the third vote of three can change no majority.
    assert len(predictions) == manifest.outputs["predictions"].rows == 2 * 16 * 2 * 3
    asked = {(r["model"], r["row"], r["order"], r["sample"]) for r in predictions.to_pylist()}
    assert len(asked) == len(predictions)
    versions = list(dict.fromkeys(chain.server.answered))
    assert [v.partition("-")[0] for v in versions] == ["base", "rl"]
    assert set(predictions["weights"].to_pylist()) == set(versions)


def test_report_and_predictions_lie_under_the_jobs_name_too(chain: Chain):
    manifest = chain.run().manifest
    store = chain.workplace.store
    for output, name in (
        ("report", "report.html"),
        ("report", "report.json"),
        ("predictions", "predictions.parquet"),
    ):
        assert store.get(f"jobs/job/{output}/{name}") == chain.read(manifest, output, name)
    report = json.loads(store.get("jobs/job/report/report.json"))
    lines = {line["name"]: line["value"] for line in report["settings"]}
    assert "8 steps, at most" in lines["RL"], "what was done, not what was allowed"
    contaminated = chain.known[Stage.PREPARE].summary["contaminatedRows"]
    assert lines.get("Contamination", "0 ").startswith(f"{contaminated} ")
    base = report["models"]["base"]
    assert (base["chosenFirst"], base["chosenSecond"], base["orderAgreement"]) == (1.0, 0.0, 0.0)
    assert [(a["name"], a["digest"]) for a in report["artifacts"]] == [
        (name, ref.digest) for name, ref in chain.config().inputs.items()
    ]
    assert {c["name"] for c in report["curves"]} == {"reward/mean", "loss"}
    # The base model's preference for the first place cancels over both orders; RL's is knowledge.
    assert base["calibration"]["brier"]["value"] == 0.25
    rl = report["models"]["rl"]["calibration"]
    assert (rl["known"], rl["brier"]["value"] < 0.02) == (1.0, True)


def latest(chain: Chain) -> dict[str, Any]:
    return json.loads(chain.workplace.store.get("jobs/job/latest.json"))


def test_latest_moves_to_a_result_only_when_its_gates_are_passed(chain: Chain):
    passed = chain.run().manifest
    assert latest(chain)["manifest"] == f"stages/evaluate/{passed.key}/manifest.json"
    assert latest(chain)["outputs"]["report"] == (
        f"stages/evaluate/{passed.key}/{passed.outputs['report'].path}"
    )
    before = latest(chain)
    chain.spec["evaluate"]["gates"] = [
        {"metric": "ValidRate", "minimum": 1, "notWorseThan": "Base"}
    ]
    chain.spec["evaluate"]["votes"] = [1]
    good = chain.run().manifest
    assert good.summary["gates"] == "passed"
    assert latest(chain)["manifest"] == f"stages/evaluate/{good.key}/manifest.json" != before

    # The base model always says 1.
    chain.spec["evaluate"]["models"] = ["Base"]
    chain.spec["evaluate"]["gates"] = [{"metric": "OrderAgreement", "minimum": 0.5}]
    bad = chain.run().manifest
    assert bad.summary["gates"] == "failed: OrderAgreement 0.000 is below 0.5"
    assert latest(chain)["manifest"] == f"stages/evaluate/{good.key}/manifest.json"
    report = json.loads(chain.workplace.store.get("jobs/job/report/report.json"))
    assert report["gates"][0]["failure"] == "OrderAgreement 0.000 is below 0.5"


@pytest.mark.parametrize("starting", [prepare, evaluate])
def test_a_straggler_of_a_deleted_job_moves_nothing_once_a_pod_of_the_next_has_started(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, starting: ModuleType
):
    """The next job of the name ends early here: that it has started must be enough."""
    before, uid = chain.workplace.uid, "next-of-the-name"

    def overtake(*_: object) -> None:
        chain.workplace.uid = uid
        stage = Stage.PREPARE if starting is prepare else Stage.EVALUATE
        with monkeypatch.context() as patch:
            patch.setattr(starting, "begin", die)
            with pytest.raises(Killed):
                starting.run(chain.config(stage=stage), chain.workplace.context(stage))
        chain.workplace.uid = before

    monkeypatch.setattr(evaluate.Journal, "clear", overtake)
    with pytest.raises(InfrastructureError, match=r"jobs/job/claim\.json was written by another"):
        chain.run()
    keys = {found.key for found in chain.workplace.store.list("jobs/job/")}
    assert {key for key in keys if "/logs/" not in key} == {"jobs/job/claim.json"}


def test_an_evaluation_that_prepare_finds_computed_lies_under_the_new_jobs_name(chain: Chain):
    manifest = chain.run().manifest
    chain.workplace.uid = "another-job"
    config = chain.workplace.config(chain.spec, Stage.PREPARE)
    config = config.model_copy(update={"job": config.job.model_copy(update={"name": "second"})})
    outcome = prepare.run(config, chain.workplace.context(Stage.PREPARE))
    assert [c.stage for c in outcome.cached] == [Stage.RL, Stage.EVALUATE]
    store = chain.workplace.store
    assert store.get("jobs/second/report/report.html") == chain.read(
        manifest, "report", "report.html"
    )
    assert json.loads(store.get("jobs/second/latest.json"))["job"]["uid"] == "another-job"


def test_a_stage_that_is_finished_reports_itself_again_without_a_server(chain: Chain):
    first = chain.run()
    chain.server.kill()
    again = chain.run(attempt=2)
    assert again.manifest == first.manifest
    chain.workplace.uid = "another-job"
    assert chain.run().cache_hit


def test_what_a_killed_attempt_had_answered_is_not_asked_again(chain: Chain):
    whole = chain.run().manifest
    store = chain.workplace.store
    assert not list(store.list(f"{chain.config().run_prefix}/journal/"))

    # A killed attempt: no manifest, and the journal of the base model alone.
    store.delete(f"stages/evaluate/{whole.key}/manifest.json")
    kept = pq.read_table(io.BytesIO(chain.read(whole, "predictions", "predictions.parquet")))
    kept = kept.drop_columns(["probability"])  # made of all rows in the end
    base = kept.filter(pa.array([m == "base" for m in kept["model"].to_pylist()]))
    out = io.BytesIO()
    pq.write_table(base, out)
    store.put(f"{chain.config().run_prefix}/journal/base/heldout/00000.parquet", out.getvalue())

    chain.server.answered.clear()
    again = chain.run(attempt=2).manifest
    assert {v.partition("-")[0] for v in chain.server.answered} == {"rl"}
    assert again.summary == whole.summary
    assert again.attempt == 2


def test_what_was_uploaded_before_a_kill_goes_and_no_prompt_is_asked_again(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "publish", die)
        with pytest.raises(Killed):
            chain.run()
    chain.server.answered.clear()
    with monkeypatch.context() as patch:  # killed again, as the result is there
        patch.setattr(evaluate.Journal, "clear", die)
        with pytest.raises(Killed):
            chain.run(attempt=2)
    assert chain.server.answered == []
    manifest = chain.run(attempt=3).manifest
    assert manifest.attempt == 2
    assert chain.workplace.left(manifest) == {"attempt-2/predictions", "attempt-2/report"}
    assert not list(chain.workplace.store.list(f"{chain.config().run_prefix}/journal/"))
    assert chain.read(manifest, "report", "report.html") == chain.workplace.store.get(
        "jobs/job/report/report.html"
    )


def test_all_votes_are_asked_for_where_early_stopping_is_off(chain: Chain):
    chain.spec["evaluate"]["earlyStop"] = False
    assert chain.run().manifest.outputs["predictions"].rows == 2 * 16 * 2 * 4


def test_a_benchmark_is_judged_beside_the_held_out_rows_and_scored_by_its_own_rules(
    chain: Chain, workplace: Workplace
):
    benchmark = [
        {
            "id": f"{kind}-{number}",
            "prompt": row.question,
            "chosen": (row.answer1, row.answer2)[row.gold - 1],
            "rejected": (row.answer1, row.answer2)[2 - row.gold],
            "image": f"images/{number}.png",
        }
        for number, row in enumerate(ROWS[:12])
        for kind in [("RLAIF-V", "mathverse", "wildvision")[number % 3]]
    ]
    store = workplace.open_store(f"{workplace.root}/vl")
    store.put("data.jsonl", "\n".join(map(json.dumps, benchmark)).encode())
    for number, row in enumerate(ROWS[:12]):
        store.put(f"images/{number}.png", row.images[0])
    chain.spec["evaluate"] |= {
        "sets": [
            {"name": "vl", "uri": f"{workplace.root}/vl/*.jsonl", "format": "VLRewardBenchRelease"}
        ],
        "protocols": ["BothOrders", "SeededRandom", "Release"],
    }
    chain.known[Stage.PREPARE] = prepare.run(
        workplace.config(chain.spec, Stage.PREPARE), workplace.context(Stage.PREPARE)
    ).manifest
    manifest = chain.run().manifest
    assert manifest.summary["set.vl"] == "1.000 ± 0.000"
    report = json.loads(chain.read(manifest, "report", "report.json"))
    (vl,) = report["sets"]
    assert vl["benchmark"] == "VL-RewardBench"
    scores = {(b["protocol"], b["split"]): b for b in vl["models"]["base"]["benchmarks"]}
    # The base model always says 1: perfect as published, at chance in truth.
    assert scores["Release", "Official"]["micro"] == 100
    assert scores["BothOrders", "Official"]["micro"] == 50
    split = {
        (split, c["category"]): c["pairs"]
        for split in ("Official", "CaseSensitive")
        for c in scores["BothOrders", split]["categories"]
    }
    assert split == {
        ("Official", "Hallucination"): 4,
        ("Official", "Reasoning"): 4,
        ("Official", "General"): 4,
        ("CaseSensitive", "Reasoning"): 4,
        ("CaseSensitive", "General"): 8,
    }
    assert report["models"]["rl"]["rows"] == 16


@pytest.mark.parametrize("prompts", [1, 30, 100])
def test_ended_at_any_moment_it_asks_again_for_nothing_that_is_stored(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, prompts: int
):
    monkeypatch.setattr(session, "_ANSWERS_PER_CHUNK", 24)  # three rows, six chunks a model
    stop, asked = threading.Event(), [0]

    def observe(path: str) -> None:
        asked[0] += path == "/inference/v1/generate"
        if asked[0] >= prompts:
            stop.set()

    chain.server.observer = observe
    with pytest.raises(Interrupted):
        chain.run(stop=stop)
    store = chain.workplace.store
    keys = [found.key for found in store.list(f"{chain.config().run_prefix}/journal/")]
    stored = [pq.read_table(io.BytesIO(store.get(key))) for key in keys]
    rows = sum(len(set(table["row"].to_pylist())) for table in stored)
    assert rows < 2 * 16
    asked[0], chain.server.observer = 0, lambda path: None
    chain.server.answered.clear()
    again = chain.run(attempt=2).manifest
    # Of every other row both orders are asked: greedily, and for one round of votes.
    assert len(chain.server.answered) == (2 * 16 - rows) * 2 * 2
    predictions = io.BytesIO(chain.read(again, "predictions", "predictions.parquet"))
    whole = pq.read_table(predictions).drop_columns(["seconds", "probability"]).to_pylist()
    kept = [r for table in stored for r in table.drop_columns(["seconds"]).to_pylist()]
    assert all(record in whole for record in kept)
    assert (len(whole), again.summary["accuracy"]) == (2 * 16 * 2 * 3, "1.000 ± 0.000")


Asked = tuple[str, int, str, bool]
"""Model, row, order, and whether the greedy answer or a vote is asked for."""


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in (2, 3, 4))]
)
def test_killed_anywhere_in_or_between_chunks_it_asks_again_for_nothing_that_is_stored(
    chain: Chain, seed: int
):
    """Killed within a chunk (at a prompt of a seed), while a chunk is on its way to storage, and
    when it is stored and storage has not said so: one attempt after another."""
    chain.spec["evaluate"]["votes"] = [1, 127]  # 256 answers a row: chunks of four rows
    calm = judgements_of(chain, chain.run().manifest)
    chain.workplace.store.delete(f"stages/evaluate/{chain.config().key}/manifest.json")
    every = Counter(asked(chain))
    assert (len(every), set(every.values())) == (2 * 16 * 2 * 2, {1})
    chain.server.asked.clear()

    rng = random.Random(seed)
    faults = ["prompt", "leaving", "stored"]
    rng.shuffle(faults)
    process: subprocess.Popen[bytes] | None = None
    fault, until, killed = "", 0, threading.Event()

    def kill() -> None:
        assert process is not None
        process.kill()
        killed.set()

    def at_prompt(path: str) -> None:
        nonlocal until
        until -= path == "/inference/v1/generate" and fault == "prompt"
        if until == 0 and fault == "prompt" and not killed.is_set():
            kill()

    def at_chunk(request: Request) -> Fault | None:
        nonlocal until
        if request.method != "PUT" or "/journal/" not in request.key or fault == "prompt":
            return None
        until -= 1
        if until == 0:
            kill()
        elif until < 0:
            return Fault.AWAY  # of an attempt that is dead
        return Fault.AWAY if until == 0 and fault == "leaving" else None

    chain.server.observer = at_prompt
    way_to = chain.workplace.environ["AWS_ENDPOINT_URL"]
    with faulty_way(way_to) as way:
        way.rule = at_chunk
        for attempt, fault in enumerate(faults, 1):
            before, known = len(chain.server.asked), stored(chain)
            until = rng.randint(2, 24) if fault == "prompt" else rng.randint(1, 2)
            killed.clear()
            process = start(chain, attempt, way.url)
            assert killed.wait(120)
            assert process.wait(30) == -signal.SIGKILL
            now = stored(chain)
            assert known <= now
            assert (fault == "stored") <= (known < now)
            assert not known & set(asked(chain, before))
    before, known = len(chain.server.asked), stored(chain)
    fault = ""
    manifest = chain.run(len(faults) + 1).manifest
    last = Counter(asked(chain, before))
    assert known
    assert (set(last), set(last.values())) == (set(every) - known, {1})
    # Two chunks of four rows are under way at once.
    assert len(chain.server.asked) - len(every) <= len(faults) * 2 * 4 * 2 * 2
    assert judgements_of(chain, manifest) == calm


def start(chain: Chain, attempt: int, endpoint: str) -> subprocess.Popen[bytes]:
    """`r1 evaluate` as in its pod."""
    folder = chain.workplace.folder
    (folder / "run.json").write_text(chain.config(attempt).model_dump_json(by_alias=True))
    (folder / "token").write_text(TOKEN)
    environment = {
        **os.environ,
        **chain.workplace.environ,
        "AWS_ENDPOINT_URL": endpoint,
        "PYTHONPATH": "operator:trainer_image:.",
        "R1_RUN_CONFIG": str(folder / "run.json"),
        "R1_TOKEN_FILE": str(folder / "token"),
        "R1_SCRATCH": str(folder / f"scratch-{attempt}"),
        "R1_TERMINATION_LOG": str(folder / "termination"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, "-m", "r1reward_trainer", "evaluate"], env=environment)


def asked(chain: Chain, since: int = 0) -> list[Asked]:
    """What the server was asked, told by the seeds."""
    spec = chain.config().spec.evaluate
    prompts = {
        vote_seed(spec.seed, "heldout", row, order): (row, order)
        for row in range(16)
        for order in ORDERS
    }
    return [
        (version.partition("-")[0], *prompts[sampling["seed"]], sampling["temperature"] == 0)
        for version, sampling in chain.server.asked[since:]
    ]


def stored(chain: Chain) -> set[Asked]:
    """What the chunks in storage hold the answers to."""
    store = chain.workplace.store
    return {
        (r["model"], r["row"], r["order"], r["sample"] == GREEDY)
        for found in store.list(f"{chain.config().run_prefix}/journal/")
        for r in pq.read_table(io.BytesIO(store.get(found.key))).to_pylist()
    }


def judgements_of(chain: Chain, manifest: StageManifest) -> list[dict[str, Any]]:
    """The predictions but for the times."""
    content = chain.read(manifest, "predictions", "predictions.parquet")
    return pq.read_table(io.BytesIO(content)).drop_columns(["seconds"]).to_pylist()


def test_a_baseline_judges_the_same_rows_and_stands_in_the_same_tables(
    chain: Chain, workplace: Workplace, tmp_path: Path
):
    build_model(tmp_path / "other", seed=3)
    place = workplace.open_store(f"{workplace.root}/other")
    for file in (tmp_path / "other").iterdir():
        place.put_file(file, file.name)
    chain.spec["evaluate"] |= {
        "votes": [1],
        "baselines": [{"name": "other-judge", "uri": f"{workplace.root}/other"}],
    }
    chain.known[Stage.PREPARE] = prepare.run(
        workplace.config(chain.spec, Stage.PREPARE), workplace.context(Stage.PREPARE)
    ).manifest
    manifest = chain.run().manifest
    assert [v.rpartition("-")[0] for v in dict.fromkeys(chain.server.answered)] == [
        "other-judge",
        "base",
        "rl",
    ]
    report = json.loads(chain.read(manifest, "report", "report.json"))
    accuracy = {name: model["accuracy"]["value"] for name, model in report["models"].items()}
    assert accuracy == {"other-judge": 1.0, "base": 0.5, "rl": 1.0}
    compared = {(g["after"], g["before"]): g["accuracy"]["value"] for g in report["gains"]}
    assert compared["rl", "other-judge"] == 0
    assert manifest.summary["accuracy.other-judge"] == "1.000 ± 0.000"


def test_a_baseline_that_the_base_models_servers_cannot_load_ends_prepare_with_its_name(
    chain: Chain, workplace: Workplace, tmp_path: Path
):
    folder = build_model(tmp_path / "other", seed=3)
    weights = load_file(folder / "model.safetensors")
    name = min(weights)
    save_file({**weights, name: weights[name][:1].clone()}, folder / "model.safetensors")
    place = workplace.open_store(f"{workplace.root}/other")
    for file in folder.iterdir():
        place.put_file(file, file.name)
    chain.spec["evaluate"]["baselines"] = [{"name": "small", "uri": f"{workplace.root}/other"}]
    with pytest.raises(ConfigurationError) as error:
        prepare.run(workplace.config(chain.spec, Stage.PREPARE), workplace.context(Stage.PREPARE))
    assert error.value.reason is Reason.INVALID_MODEL
    assert error.value.message.startswith("evaluate.baselines small: uri ")
    assert f"has other weights than the base model: {name} is (1, " in error.value.message


def test_a_damaged_journal_is_asked_again(chain: Chain):
    chain.workplace.store.put(
        f"{chain.config().run_prefix}/journal/base/heldout/00000.parquet", b"PAR1 cut"
    )
    assert chain.run().manifest.summary["accuracy.base"] == "0.500 ± 0.000"


def test_it_ends_on_sigterm_without_a_result(chain: Chain):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        chain.run(stop=stop)
    assert find(chain.workplace.store, Stage.EVALUATE, chain.config().key or "") is None


@pytest.mark.parametrize("path", ["/collective_rpc", "/inference/v1/generate"])
def test_sigterm_is_heard_while_the_servers_take_their_time(chain: Chain, path: str):
    """They load weights and answer for longer than a pod has to end."""
    stop = threading.Event()
    chain.server.silent = {path}
    chain.server.observer = lambda called: stop.set() if called == path else None
    with pytest.raises(Interrupted):
        chain.run(stop=stop)


def test_only_so_many_rows_are_used_as_asked_for(chain: Chain):
    chain.spec["evaluate"] |= {"maxRows": 5, "votes": [1]}
    manifest = chain.run().manifest
    assert manifest.outputs["predictions"].rows == 2 * 5 * 2
    assert "votes" not in manifest.summary
