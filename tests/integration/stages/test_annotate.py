# SPDX-License-Identifier: Apache-2.0
import base64
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from r1reward_api.constants import ExitCode, Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import RunConfig
from r1reward_api.wire.termination import Termination
from r1reward_trainer.annotation import spread
from r1reward_trainer.annotation.choice import cut
from r1reward_trainer.annotation.results import Tally, read_results
from r1reward_trainer.data.rows import Row, open_annotated, write_rows
from r1reward_trainer.outcome import ConfigurationError, Interrupted
from r1reward_trainer.stages import annotate
from r1reward_trainer.storage.outputs import download_files, publish, upload_output
from r1reward_trainer.teacher import REFUSALS_BEFORE_GIVING_UP
from tests.digits.rows import TEMPLATE, preference_rows
from tests.digits.service import MODEL
from tests.digits.teacher import DigitsTeacher, read_prompt
from tests.faulty_way import Request, faulty_way
from tests.integration.stages.harness import Killed, Workplace, die
from tests.unit.teacher.faulty_teacher import FaultyTeacher, Reply, serve

ROWS = preference_rows()[:160]
CONCURRENCY = 4


@pytest.fixture(scope="module")
def teacher() -> DigitsTeacher:
    return DigitsTeacher()


@contextmanager
def serving(
    teacher: DigitsTeacher,
    delay: Callable[[], float] = lambda: 0.0,
    on_request: Callable[[int], None] = lambda number: None,
    fails: Callable[[int], bool] = lambda number: False,
) -> Iterator[FaultyTeacher]:
    """The digits teacher, its requests counted.

    Args:
        teacher: who answers.
        delay: seconds before each answer.
        on_request: is told the number of each request.
        fails: whether a request is answered with HTTP 500, by its number.
    """

    def rule(number: int, body: dict[str, Any]) -> Reply:
        on_request(number)
        if fails(number):
            return Reply(status=500)
        image, text = body["messages"][0]["content"]
        choice = read_prompt(text["text"])
        assert choice is not None
        png = base64.b64decode(image["image_url"]["url"].partition(",")[2])
        answer = teacher.answer(png, choice, body["temperature"], body["seed"])
        return Reply(answer, delay=delay())

    with serve(rule) as service:
        yield service


def spec_of(workplace: Workplace, url: str, **changes: Any) -> dict[str, Any]:
    return {
        "runtimeRef": {"name": "cpu"},
        "model": {"uri": f"{workplace.root}/base"},
        "data": {"preferences": [{"uri": f"{workplace.root}/rows/x"}], "promptTemplate": TEMPLATE},
        "annotate": {
            "teacher": {"baseUrl": url, "model": MODEL, "maxConcurrency": CONCURRENCY},
            "temperature": 1.0,
            **changes,
        },
    }


@pytest.fixture
def prepared(workplace: Workplace) -> dict[Stage, StageManifest]:
    """A prepare stage with the rows as `train`."""
    config = workplace.config(spec_of(workplace, "http://unused"), Stage.PREPARE)
    config = config.model_copy(update={"key": "0" * 64})
    write_rows(workplace.folder / "train", ROWS, Row)
    output = upload_output(workplace.store, config, "train", workplace.folder / "train", len(ROWS))
    manifest, _ = publish(workplace.store, config, {"train": output}, {})
    return {Stage.PREPARE: manifest}


def run(workplace: Workplace, config: RunConfig, stop: threading.Event | None = None) -> Any:
    return annotate.run(config, workplace.context(Stage.ANNOTATE, stop))


def output(workplace: Workplace, manifest: StageManifest, name: str) -> list[Any]:
    found = manifest.outputs[name]
    folder = workplace.folder / f"out-{name}-{manifest.created_by}"
    prefix = f"stages/annotate/{manifest.key}/{found.path}"
    download_files(workplace.store, prefix, found.files, folder)
    return list(open_annotated(folder))


def asked(service: FaultyTeacher) -> Counter[tuple[str, int]]:
    """How often each question was put, seeds telling attempts apart."""
    return Counter((r["messages"][0]["content"][1]["text"], r["seed"]) for r in service.requests)


def test_right_rows_are_accepted_and_later_ones_are_hard(
    workplace: Workplace, prepared: dict[Stage, StageManifest], teacher: DigitsTeacher
) -> None:
    with serving(teacher) as service:
        config = workplace.config(spec_of(workplace, service.url), Stage.ANNOTATE, prepared)
        outcome = run(workplace, config)
    manifest = outcome.manifest
    sft, rl = output(workplace, manifest, "sft"), output(workplace, manifest, "rl")
    assert all(f"<answer>{r.gold}</answer>" in r.response and r.attempts >= 1 for r in sft)
    assert all(r.attempts != 1 for r in rl)
    assert {r.id for r in sft} | {r.id for r in rl} == {r.id for r in ROWS}
    assert [r.id for r in sft] == [r.id for r in ROWS if r.id in {x.id for x in sft}]
    summary = manifest.summary
    assert (summary["accepted"], summary["hard"]) == (str(len(sft)), str(len(rl)))
    assert summary["teacherAnswers"] == str(len(service.requests))
    assert max(asked(service).values()) == 1
    assert service.most_in_flight <= CONCURRENCY

    # A finished stage is told again, without a question.
    with serving(teacher) as idle:
        again = run(workplace, config)
    assert (again.manifest, again.cache_hit, idle.requests) == (manifest, False, [])


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(1, 2), *(pytest.param(seed, 4, marks=pytest.mark.full) for seed in (2, 3, 4))],
)
def test_an_annotation_that_is_killed_asks_again_at_most_what_was_in_flight(
    workplace: Workplace,
    prepared: dict[Stage, StageManifest],
    teacher: DigitsTeacher,
    seed: int,
    kills: int,
) -> None:
    """Killed at moments of a seed, one attempt after another, and once at the last question,
    while storage is slower than the teacher."""
    calm = Workplace(workplace.environ, workplace.folder, f"{workplace.root}/calm")
    calm_prepared = copy_of(prepared, workplace, calm)
    with serving(teacher) as s:
        spec = spec_of(calm, s.url, maxRows=60)
        undisturbed = run(calm, calm.config(spec, Stage.ANNOTATE, calm_prepared))
    questions = int(undisturbed.manifest.summary["teacherAnswers"])
    rng = random.Random(seed)
    moments = [*sorted(rng.sample(range(1, questions), kills - 1)), questions]

    reached = threading.Event()
    awaited = 0
    before: Counter[tuple[str, int]] = Counter()

    def note(number: int) -> None:
        if number >= awaited:
            reached.set()

    def slowly(request: Request) -> None:
        if request.method == "PUT":
            threading.Event().wait(rng.uniform(0.03, 0.1))

    with (
        serving(teacher, lambda: rng.uniform(0, 0.03), note) as s,
        faulty_way(workplace.environ["AWS_ENDPOINT_URL"]) as way,
    ):
        way.rule = slowly
        spec = spec_of(workplace, s.url, maxRows=60)
        for attempt, moment in enumerate(moments, 1):
            # What a kill makes to be asked again comes on top of the moments after it.
            repeated = len(s.requests) - len(asked(s))
            awaited = moment + repeated
            reached.clear()
            config = workplace.config(spec, Stage.ANNOTATE, prepared, attempt)
            process = start(workplace, config, {"AWS_ENDPOINT_URL": way.url})
            assert reached.wait(90)
            process.kill()
            assert process.wait(30) == -signal.SIGKILL
            before = asked(s)
        last = len(moments) + 1
        outcome = run(workplace, workplace.config(spec, Stage.ANNOTATE, prepared, last))
    counts = asked(s)
    assert len(counts) == questions
    assert sum(counts.values()) - questions <= kills * CONCURRENCY
    again = [n for question, n in counts.items() if n > before[question] > 0]
    assert len(again) <= CONCURRENCY
    manifest = outcome.manifest
    assert (manifest.attempt, manifest.summary) == (last, undisturbed.manifest.summary)
    for name in ("sft", "rl"):
        assert output(workplace, manifest, name) == output(calm, undisturbed.manifest, name)

    other = Workplace(workplace.environ, workplace.folder, workplace.root)
    assert run(other, other.config(spec, Stage.ANNOTATE, prepared)).cache_hit


def test_what_was_uploaded_before_a_kill_goes_and_the_answers_it_was_made_of_stay(
    workplace: Workplace,
    prepared: dict[Stage, StageManifest],
    teacher: DigitsTeacher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(teacher) as service:
        spec = spec_of(workplace, service.url, maxRows=20)
        first = workplace.config(spec, Stage.ANNOTATE, prepared)
        with monkeypatch.context() as patch:
            patch.setattr(annotate, "publish", die)
            with pytest.raises(Killed):
                run(workplace, first)
        questions = len(service.requests)
        second = workplace.config(spec, Stage.ANNOTATE, prepared, attempt=2)
        manifest = run(workplace, second).manifest
        assert len(service.requests) == questions
    assert manifest.summary["teacherAnswers"] == str(questions)
    assert workplace.left(manifest) == {"attempt-2/sft", "attempt-2/rl"}
    assert list(workplace.store.list(f"{first.run_prefix}/journal/")), "they are paid for"


def copy_of(
    prepared: dict[Stage, StageManifest], workplace: Workplace, other: Workplace
) -> dict[Stage, StageManifest]:
    """The same rows in another place."""
    config = other.config(spec_of(other, "http://unused"), Stage.PREPARE)
    config = config.model_copy(update={"key": prepared[Stage.PREPARE].key})
    output = upload_output(other.store, config, "train", workplace.folder / "train", len(ROWS))
    return {Stage.PREPARE: publish(other.store, config, {"train": output}, {})[0]}


def test_a_teacher_of_whose_answers_a_third_fail_annotates_every_row_and_its_faults_are_counted(
    workplace: Workplace, prepared: dict[Stage, StageManifest], teacher: DigitsTeacher
) -> None:
    with serving(teacher, fails=lambda number: number % 3 == 0) as service:
        spec = spec_of(workplace, service.url, maxRows=80)
        spec["annotate"]["teacher"]["maxConcurrency"] = 32
        manifest = run(workplace, workplace.config(spec, Stage.ANNOTATE, prepared)).manifest
    summary = manifest.summary
    faults = len(service.requests) // 3
    assert faults > 20
    assert summary["teacherFaults"] == str(faults)
    assert summary["teacherAnswers"] == str(len(service.requests) - faults)
    assert summary["teacherRefusals"] == "0"
    assert summary["annotatedRows"] == "80"
    rows = {r.id for name in ("sft", "rl") for r in output(workplace, manifest, name)}
    assert len(rows) == 80


def start(
    workplace: Workplace, config: RunConfig, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """`r1 annotate` as in its pod."""
    folder = workplace.folder
    (folder / "run.json").write_text(config.model_dump_json(by_alias=True))
    environment = {
        **os.environ,
        **workplace.environ,
        "PYTHONPATH": "operator:trainer_image:.",
        "R1_RUN_CONFIG": str(folder / "run.json"),
        "R1_SCRATCH": str(folder / "scratch"),
        "R1_TERMINATION_LOG": str(folder / "termination"),
        "OMP_NUM_THREADS": "1",
        **(environ or {}),
    }
    return subprocess.Popen([sys.executable, "-m", "r1reward_trainer", "annotate"], env=environment)


def test_sigterm_ends_it_with_all_answers_saved(
    workplace: Workplace, prepared: dict[Stage, StageManifest], teacher: DigitsTeacher
) -> None:
    begun = threading.Event()
    with serving(teacher, lambda: 0.02, on_request=lambda n: begun.set() if n == 20 else None) as s:
        config = workplace.config(spec_of(workplace, s.url), Stage.ANNOTATE, prepared)
        process = start(workplace, config)
        assert begun.wait(90)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == ExitCode.INTERRUPTED
        first = len(s.requests)
        outcome = run(workplace, config)
    message = Termination.decode((workplace.folder / "termination").read_text())
    assert message is not None
    assert (message.outcome, message.reason) == ("Interrupted", Reason.INTERRUPTED)
    assert first < len(s.requests)
    assert len(s.requests) - int(outcome.manifest.summary["teacherAnswers"]) <= CONCURRENCY


def test_rays_processes_give_the_same_result_as_one(
    workplace: Workplace,
    prepared: dict[Stage, StageManifest],
    teacher: DigitsTeacher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in workplace.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", "operator:trainer_image:.")
    shards = cut(range(len(ROWS)), shard_rows=40)
    with serving(teacher) as service:
        config = workplace.config(spec_of(workplace, service.url), Stage.ANNOTATE, prepared)
        found, tallies = {}, {}
        for processes in (1, 2):
            results = workplace.folder / f"results-{processes}"
            results.mkdir()
            job = config.model_copy(update={"key": str(processes)})
            work = spread.Work(job, workplace.folder / "train", results, processes)
            tally = tallies[processes] = Tally()
            stop = threading.Event()
            if processes == 1:
                spread.work_on(work, shards, workplace.store, None, stop, tally.add)
            else:
                spread.spread(work, shards, stop, tally.add)
            found[processes] = list(read_results(results, shards))
    assert found[1] == found[2]
    assert len(found[1]) == len(ROWS)
    assert tallies[1] == tallies[2]


def test_max_rows_takes_whole_images(
    workplace: Workplace, prepared: dict[Stage, StageManifest], teacher: DigitsTeacher
) -> None:
    with serving(teacher) as service:
        spec = spec_of(workplace, service.url, maxRows=42, seed=5)
        manifest = run(workplace, workplace.config(spec, Stage.ANNOTATE, prepared)).manifest
    rows = output(workplace, manifest, "sft") + output(workplace, manifest, "rl")
    images = Counter(image for _, image in {(r.id, r.images) for r in rows})
    assert manifest.summary["annotatedRows"] == "40"
    assert set(images.values()) == {4}


def test_a_refused_key_ends_the_stage_as_the_users_to_correct(
    workplace: Workplace, prepared: dict[Stage, StageManifest]
) -> None:
    with serve(lambda n, body: Reply(status=401)) as service:
        config = workplace.config(spec_of(workplace, service.url), Stage.ANNOTATE, prepared)
        with pytest.raises(ConfigurationError) as error:
            run(workplace, config)
    assert error.value.reason is Reason.TEACHER_DENIED


def test_an_attempt_whose_questions_are_all_refused_keeps_what_an_earlier_one_was_answered(
    workplace: Workplace, prepared: dict[Stage, StageManifest]
) -> None:
    stop = threading.Event()

    def rule(number: int, body: dict[str, Any]) -> Reply:
        if stop.is_set():
            return Reply(status=400, body=b"content filter")
        if number == 100:
            stop.set()
        return Reply("<think>so it is</think><answer>1</answer>")

    with serve(rule) as service:
        spec = spec_of(workplace, service.url)
        with pytest.raises(Interrupted):
            run(workplace, workplace.config(spec, Stage.ANNOTATE, prepared), stop)
        before = len(service.requests)
        outcome = run(workplace, workplace.config(spec, Stage.ANNOTATE, prepared, 2))
    assert len(service.requests) - before > REFUSALS_BEFORE_GIVING_UP
    assert len(output(workplace, outcome.manifest, "sft")) > 0


def test_stop_before_the_first_answer_is_an_interruption(
    workplace: Workplace, prepared: dict[Stage, StageManifest]
) -> None:
    stop = threading.Event()
    with serve(lambda n, body: (stop.set(), Reply("late", delay=20))[1]) as service:
        config = workplace.config(spec_of(workplace, service.url), Stage.ANNOTATE, prepared)
        with pytest.raises(Interrupted):
            run(workplace, config, stop)


def test_a_teacher_that_is_never_right_leaves_sft_nothing_and_says_so(
    workplace: Workplace, prepared: dict[Stage, StageManifest]
) -> None:
    with serve(lambda n, body: Reply("I cannot tell.")) as service:
        spec = {**spec_of(workplace, service.url, maxRows=8), "sft": {}}
        with pytest.raises(ConfigurationError, match="never right in 8 rows"):
            run(workplace, workplace.config(spec, Stage.ANNOTATE, prepared))
    journal = [o for o in workplace.store.list("stages/annotate/") if "/journal/" in o.key]
    lines = [json.loads(line) for o in journal for line in workplace.store.get(o.key).splitlines()]
    assert len(lines) == 24
    assert {line["text"] for line in lines} == {"I cannot tell."}
