# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1reward_api.resource.job import AnnotateSpec, Teacher
from r1reward_trainer.annotation.ask import Result, attempt_seed, question_of, result_of
from r1reward_trainer.annotation.choice import choose_rows, cut, rows_a_shard
from r1reward_trainer.annotation.journal import Answer, decode, encode
from r1reward_trainer.annotation.results import Tally, read_results, write_outputs, write_results
from r1reward_trainer.annotation.spread import processes_for
from r1reward_trainer.data.rows import AnnotatedRow, Row, open_annotated

RIGHT = "<think>because</think><answer>1</answer>"
WRONG = "<think>because</think><answer>2</answer>"


def row(number: int, image: int | None = None) -> Row:
    shown = number if image is None else image
    return Row(f"r{number}", "q", "one", "two", 1, (b"image-%d" % shown,), "s")


def answers(*texts: str) -> list[Answer]:
    return [Answer(5, n, text, 0.0 if n == 1 else 1.0) for n, text in enumerate(texts, 1)]


@pytest.mark.parametrize(
    ("texts", "result"),
    [
        ([], None),
        ([WRONG, WRONG], None),
        ([RIGHT], Result(5, 1, RIGHT, 0.0, 1, 0)),
        ([WRONG, RIGHT + "\n"], Result(5, 2, RIGHT, 1.0, 2, 0)),
        (["<answer>1</answer>", "1", WRONG], Result(5, 0, "", 1.0, 3, 0)),
        ([RIGHT + "<answer>1</answer>", "", RIGHT], Result(5, 3, RIGHT, 1.0, 3, 0)),
    ],
)
def test_a_row_is_asked_until_it_is_right_or_has_had_its_attempts(
    texts: list[str], result: Result | None
) -> None:
    assert result_of(5, 1, answers(*texts), max_attempts=3) == result


def test_later_attempts_use_another_temperature_and_seed() -> None:
    spec = AnnotateSpec(teacher=Teacher(base_url="http://t/v1", model="m"), seed=3)
    first, second = (question_of(row(0), n, spec, "{question} {answer1} {answer2}") for n in (1, 2))
    assert (first.temperature, second.temperature) == (0.0, 1.0)
    assert (first.text, first.images) == ("q one two", (b"image-0",))
    seeds = {
        attempt_seed(seed, row(n), attempt) for seed in (0, 1) for n in (0, 1) for attempt in (1, 2)
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(1, 40), st.integers(0, 3))
def test_whole_images_are_chosen(images: list[int], max_rows: int, seed: int) -> None:
    rows = [row(n, image) for n, image in enumerate(images)]
    chosen = choose_rows(rows, max_rows, seed)
    assert chosen == sorted(chosen)
    taken = {images[n] for n in chosen}
    assert chosen == [n for n, image in enumerate(images) if image in taken]
    assert len(chosen) <= max_rows or len(taken) == 1


def test_all_rows_are_cut_into_shards() -> None:
    assert choose_rows([row(n) for n in range(5)], None, 0) == [0, 1, 2, 3, 4]
    shards = cut([0, 2, 3, 7, 9], shard_rows=2)
    assert [(s.name, s.rows) for s in shards] == [
        ("shard-00000", (0, 2)),
        ("shard-00001", (3, 7)),
        ("shard-00002", (9,)),
    ]


def test_small_work_stays_in_one_process() -> None:
    assert [processes_for(shards, 32) for shards in (0, 1, 15, 16, 80, 10_000)] == [
        1, 1, 1, 2, 10, 16,
    ]  # fmt: skip
    assert processes_for(10_000, 2) == 1


def test_each_process_asked_for_gets_a_shard() -> None:
    assert [rows_a_shard(rows, 2) for rows in (0, 1, 5, 200, 10_000)] == [1, 1, 3, 100, 256]
    assert rows_a_shard(10, None) == 256


def test_a_damaged_journal_line_is_asked_again() -> None:
    kept = answers(WRONG, RIGHT)
    segment = encode(kept) + b'{"row": 1, "att'
    assert decode(segment) == kept
    assert encode(decode(segment.replace(b', "faults": 0', b""))) == encode(kept)
    assert decode(b'{"unknown": 1}\n[]\n"x"\n') == []


def test_accepted_rows_go_to_sft_and_hard_ones_to_rl(tmp_path: Path) -> None:
    rows = [row(n) for n in range(3)]
    shard = cut([0, 1, 2])[0]
    results = [
        Result(0, 1, RIGHT, 0.0, 1, 0),
        Result(1, 2, RIGHT, 1.0, 2, 1),
        Result(2, 0, "", 1.0, 3, 0),
    ]
    write_results(tmp_path, shard, results)
    counts = write_outputs(
        rows, read_results(tmp_path, [shard]), "gpt", tmp_path / "sft", tmp_path / "rl"
    )
    expected = [
        AnnotatedRow(f"r{n}", "q", "one", "two", 1, (b"image-%d" % n,), "s", text, tries, "gpt", t)
        for n, text, tries, t in [(0, RIGHT, 1, 0.0), (1, RIGHT, 2, 1.0), (2, "", 0, 1.0)]
    ]
    assert counts == (2, 2)
    assert list(open_annotated(tmp_path / "sft")) == expected[:2]
    assert list(open_annotated(tmp_path / "rl")) == expected[1:]
    results[2] = replace(results[2], faults=4)
    tally = Tally()
    for result in results:
        tally.note(result)
    assert tally.summary() == {
        "annotatedRows": "3",
        "accepted": "2",
        "hard": "2",
        "attempts": "1:1 2:1 never:1",
        "teacherAnswers": "6",
        "teacherRefusals": "1",
        "teacherFaults": "4",
    }
