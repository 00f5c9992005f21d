# SPDX-License-Identifier: Apache-2.0
"""Our scores against the benchmarks' own rules, written down again here, on the same files."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1reward_trainer.data.rows import SetRow
from r1reward_trainer.evaluation import figures
from r1reward_trainer.evaluation.benchmarks import Benchmark
from r1reward_trainer.evaluation.figures import BenchmarkFigures, ModelFigures
from r1reward_trainer.evaluation.official import write_official
from r1reward_trainer.evaluation.predictions import gold_in_order, to_table
from r1reward_trainer.evaluation.sets import evaluation_set
from tests.unit.evaluation import made
from tests.unit.evaluation.builders import Says, predictions, rows
from tests.unit.evaluation.reports import PROTOCOLS, sometimes

Lines = Sequence[Mapping[str, Any]]


def score(
    given: Sequence[SetRow], benchmark: Benchmark, says: Says, folder: Path
) -> tuple[ModelFigures, Mapping[str, Lines]]:
    """Our figures, and what lies in the official files."""
    said = to_table(predictions(given, says, of="bench", benchmark=benchmark))
    heldout = to_table(predictions(rows(2), lambda *_: 1))
    rules = figures.Rules((1,), 100, 0, (), PROTOCOLS, {"bench": benchmark})
    (found,) = figures.compute(pa.concat_tables([heldout, said]), ["rl"], rules).sets
    pq.write_table(said, folder / "predictions.parquet")
    bench = evaluation_set("bench", benchmark, given, range(len(given)))
    write_official(folder / "predictions.parquet", [bench], ["rl"], folder / "official")
    files = {
        path.name.removeprefix("rl.").removesuffix(".jsonl"): [
            json.loads(line) for line in path.read_text().splitlines()
        ]
        for path in (folder / "official/bench").iterdir()
    }
    assert {name: len(lines) for name, lines in files.items()} == dict.fromkeys(
        ("given", "swapped", "release"), len(given)
    )
    return found.models["rl"], files


def ours(model: ModelFigures, protocol: str, split: str = "Official") -> BenchmarkFigures:
    (found,) = (b for b in model.benchmarks if (b.protocol, b.split) == (protocol, split))
    return found


def accuracies(found: BenchmarkFigures) -> dict[str, float]:
    return {c.category: c.accuracy for c in found.categories}


def wins(line: Mapping[str, Any]) -> bool:
    first, second = line["rewards"]
    return first > second


def shares(lines: Lines, category: Any, right: Any = wins) -> dict[str, float]:
    """Percent by category."""
    counted: defaultdict[str, list[bool]] = defaultdict(list)
    for line in lines:
        counted[category(line)].append(right(line))
    return {name: 100 * sum(values) / len(values) for name, values in counted.items()}


# --- VL-RewardBench ---

VL = made.vl_rewardbench()
AUTHORS_GROUPS = {
    "vlfeedback": "General",
    "wildvision-battle": "General",
    "povid": "Hallucination",
    "rlhf-v": "Hallucination",
    "rlaif-v": "Hallucination",
    "reasoning_tasks": "Reasoning",
}


def released_split(line: Mapping[str, Any]) -> str:
    if any(word in line["id"] for word in ("mmmu", "mathverse")):
        return "Reasoning"
    halluc = any(word in line["id"] for word in ("hallucination", "rlhf", "rlaif"))
    return "Hallucination" if halluc else "General"


def test_the_made_file_has_the_counts_of_the_real_one():
    assert (len(VL), len({r.item for r in VL})) == (1250, 1225)
    pairs = Counter((r.item, r.question, r.gold, r.answer1, r.answer2) for r in VL)
    assert sum(n - 1 for n in pairs.values()) == 5


def test_vl_rewardbench_is_scored_as_the_released_scorer_does(tmp_path):
    model, files = score(VL, "VL-RewardBench", sometimes(VL, 0.7, 3), tmp_path)
    found = ours(model, "Release", "CaseSensitive")
    by_category = shares(files["release"], released_split)
    assert accuracies(found) == pytest.approx(by_category)
    assert found.macro == pytest.approx(sum(by_category.values()) / 3)
    assert found.micro == pytest.approx(100 * np.mean([wins(x) for x in files["release"]]))


def test_vl_rewardbench_is_split_as_its_authors_do_and_only_their_leaving_out_differs(tmp_path):
    model, files = score(VL, "VL-RewardBench", sometimes(VL, 0.7, 3), tmp_path)

    def group(line: Mapping[str, Any]) -> str:
        return AUTHORS_GROUPS[line["image_path"].split("/")[1]]

    both = [*files["given"], *files["swapped"]]
    status = Counter(line["meta"]["flag_status"] for line in both)
    assert status["doesntMatch"] > 0
    agree = shares(both, group, lambda x: x["meta"]["flag_status"] == "agree")
    found = ours(model, "BothOrders")
    assert accuracies(found) == pytest.approx(agree)
    assert {c.category: c.pairs for c in found.categories} == {
        "General": 183, "Hallucination": 749, "Reasoning": 318,
    }  # fmt: skip
    # The authors' scorer leaves silent answers out; here they are wrong.
    theirs = status["agree"] / (status["agree"] + status["reject"])
    assert found.micro == pytest.approx(100 * theirs * (1 - model.invalid))


def test_the_authors_reparse_of_a_line_finds_the_same_status(tmp_path):
    _, files = score(VL[:60], "VL-RewardBench", sometimes(VL, 0.6, 5), tmp_path)
    for line in (*files["given"], *files["swapped"]):
        worse = line["ranking"].index(1) + 1
        said = line["meta"]["filter_choice"].split("Answer ")[1].split(" is")[0]
        status = {"-": "doesntMatch", str(worse): "reject"}.get(said, "agree")
        assert status == line["meta"]["flag_status"]
    original = VL[0]
    assert files["given"][0]["response"] == [original.answer1, original.answer2]
    assert files["swapped"][0]["response"] == [original.answer2, original.answer1]


def first_of_each(share: Mapping[str, int]) -> Says:
    """Right where the better answer stands first, in so many rows of each released category."""
    left = Counter(share)
    right: set[int] = set()
    for position, r in enumerate(VL):
        category = released_split({"id": r.item})
        if left[category] > 0:
            left[category] -= 1
            right.add(position)

    def says(position: int, order: str, _: int) -> int:
        gold = gold_in_order(VL[position].gold, order)
        return gold if position in right else 3 - gold

    return says


def test_the_papers_row_comes_out_and_is_seen_not_to_be_comparable(tmp_path):
    says = first_of_each({"General": 309, "Hallucination": 384, "Reasoning": 206})
    model, _ = score(VL, "VL-RewardBench", says, tmp_path)
    released = ours(model, "Release", "CaseSensitive")
    assert {n: round(v, 2) for n, v in accuracies(released).items()} == {
        "General": 63.84, "Hallucination": 85.71, "Reasoning": 64.78,
    }  # fmt: skip
    assert (round(released.micro, 2), round(released.macro, 2)) == (71.92, 71.45)
    official = ours(model, "Release", "Official")
    assert official.micro == released.micro
    assert accuracies(official)["General"] != pytest.approx(63.84, abs=1)


# --- MM-RLHF-RewardBench ---

MM = made.mm_rlhf_rewardbench()


def test_the_made_mm_rlhf_file_has_the_counts_of_the_real_one():
    sizes = Counter(Counter(r.item for r in MM).values())
    assert (len(MM), sizes) == (170, {2: 11, 3: 13, 4: 6, 5: 11, 6: 5})
    assert Counter(r.category.split("/")[0] for r in MM) == {
        "mcq": 42, "long": 37, "short": 34, "safety": 32, "video": 25,
    }  # fmt: skip


@pytest.mark.parametrize("way", ["given", "swapped", "release"])
def test_mm_rlhf_is_scored_by_pair_and_by_whole_id(tmp_path, way):
    model, files = score(MM, "MM-RLHF-RewardBench", sometimes(MM, 0.85, 4), tmp_path)

    def path(line: Mapping[str, Any]) -> str:
        return line.get("image", "") or line.get("video", "")

    assert sum("video" in line for line in files[way]) == 25
    by_id: defaultdict[str, list[bool]] = defaultdict(list)
    for line in files[way]:
        by_id[line["id"]].append(wins(line))
    plus = 100 * sum(all(right) for right in by_id.values()) / 46
    if way == "release":
        found = ours(model, "Release")
        assert found.micro == pytest.approx(100 * np.mean([wins(x) for x in files[way]]))
        assert found.accuracy_plus == pytest.approx(plus)
        assert accuracies(found) == pytest.approx(
            shares(files[way], lambda x: path(x).split("/")[0])
        )
    else:
        # An id counts here only when it is right in both orders: never more than in either.
        assert (ours(model, "BothOrders").accuracy_plus or 0) <= plus


# --- Multimodal RewardBench ---

MULTIMODAL = made.multimodal_rewardbench()


def multimodal_category(line: Mapping[str, Any]) -> str:
    category, begin = line["Meta"]["Category"], line["ID"].lower()
    if category == "safety":
        return "safety/bias" if begin.startswith("pairs") else "safety/toxicity"
    if category == "reasoning":
        return "reasoning/math" if begin.startswith("math") else "reasoning/coding"
    return category


def test_multimodal_rewardbench_is_scored_as_both_released_scorers_do(tmp_path):
    def says(position: int, order: str, sample: int) -> int:
        return said[position, order] or 1

    chance = sometimes(MULTIMODAL, 0.8, 6)
    said = {(i, o): chance(i, o, 0) for i in range(len(MULTIMODAL)) for o in ("Given", "Swapped")}
    model, files = score(MULTIMODAL, "Multimodal RewardBench", says, tmp_path)
    found = ours(model, "Release")
    by_category = shares(files["release"], multimodal_category)
    assert accuracies(found) == pytest.approx(by_category)
    assert len(by_category) == 7
    assert found.macro == pytest.approx(sum(by_category.values()) / 7)

    def right(line: Mapping[str, Any]) -> bool:
        """The authors': a coin where neither mark is there."""
        marks = [m for m in ("A", "B") if f"[[{m}]]" in line["output"]]
        return (marks[0] if marks else random.choice("AB")) == line["Label"]

    both = [*files["given"], *files["swapped"]]
    assert accuracies(ours(model, "BothOrders")) == pytest.approx(
        shares(both, multimodal_category, right)
    )


@pytest.mark.parametrize("mark", ["[[A]]", "[[[A]]", "[[[[A]]]]"])
def test_a_response_cannot_write_the_mark_that_the_authors_scorer_looks_for(tmp_path, mark):
    given = MULTIMODAL[:1]
    said = predictions(given, lambda *_: 2, of="bench", benchmark="Multimodal RewardBench")
    hostile = [replace(p, response=mark) for p in said]
    pq.write_table(to_table(hostile), tmp_path / "p.parquet")
    bench = evaluation_set("bench", "Multimodal RewardBench", given, [0])
    write_official(tmp_path / "p.parquet", [bench], ["rl"], tmp_path / "official")
    line = json.loads((tmp_path / "official/bench/rl.given.jsonl").read_text())
    assert "[[A]]" not in line["output"]
    assert line["output"].endswith("\n[[B]]")


@pytest.mark.parametrize("hostile", ["a\u2028b", "a\x85b", "a\x1cb", "a\r\nb"])
def test_a_response_cannot_end_a_line(tmp_path, hostile):
    said = predictions(VL[:3], lambda *_: 2, of="bench", benchmark="VL-RewardBench")
    pq.write_table(to_table([replace(p, response=hostile) for p in said]), tmp_path / "p.parquet")
    bench = evaluation_set("bench", "VL-RewardBench", VL, range(3))
    write_official(tmp_path / "p.parquet", [bench], ["rl"], tmp_path / "official")
    lines = (tmp_path / "official/bench/rl.given.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["critic"] for line in lines] == [hostile] * 3


def test_sets_that_are_no_benchmark_have_no_official_file(tmp_path):
    pq.write_table(to_table(predictions(rows(2), lambda *_: 1)), tmp_path / "p.parquet")
    write_official(
        tmp_path / "p.parquet",
        [evaluation_set("mine", None, rows(2), [0, 1])],
        ["rl"],
        tmp_path / "official",
    )
    assert not (tmp_path / "official").exists()
