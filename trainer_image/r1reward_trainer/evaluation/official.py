# SPDX-License-Identifier: Apache-2.0
"""Predictions in the form that the benchmarks' own scorers read, for whoever trusts those alone.

One file a set, model and way of asking: `given` and `swapped`, read strictly, and `release`, the
better answer first and read as the R1-Reward release reads it. A line has the fields of the
release's scorer (`rewards`, the better answer's first, and `critic`) and, where there is another,
those of the benchmark's authors.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation.predictions import GREEDY, ORDERS
from r1reward_trainer.evaluation.sets import EvaluationSet

_COLUMNS = ["row", "order", "item", "category", "response", "verdict", "released", "gold"]

_TWO_BRACKETS = re.compile(r"\[(?=\[)")
"""Also in the middle of three: what is replaced must leave none."""

_VL_SOURCES = (
    ("rlaif-v", "rlaif-v"),
    ("rlhf-v", "rlhf-v"),
    ("hallucination", "povid"),
    ("mathverse", "reasoning_tasks"),
    ("mmmu", "reasoning_tasks"),
    ("wildvision", "wildvision-battle"),
)
"""The folder that an id's image is in, from what is in the id; vlfeedback for all others."""


def write_official(
    predictions: Path, sets: Sequence[EvaluationSet], models: Sequence[str], folder: Path
) -> None:
    """Writes `<folder>/<set>/<model>.<given|swapped|release>.jsonl` for each set that is a
    benchmark.

    Args:
        predictions: the Parquet file.
        sets: what was judged.
        models: whose predictions.
        folder: made where there is something to write.
    """
    for given in sets:
        if given.benchmark is None:
            continue
        place = folder / given.name
        place.mkdir(parents=True)
        for model in models:
            wanted = [("model", "==", model), ("set", "==", given.name), ("sample", "==", GREEDY)]
            greedy = pq.read_table(predictions, columns=_COLUMNS, filters=wanted).to_pylist()
            for name, answers in _ways(greedy).items():
                with (place / f"{model}.{name}.jsonl").open("w", encoding="utf-8") as file:
                    for record in lines(given, answers, release=name == "release"):
                        # ASCII: readers that split lines as Unicode does find no line within one
                        file.write(json.dumps(record) + "\n")


def lines(
    given: EvaluationSet, answers: Sequence[Mapping[str, Any]], *, release: bool
) -> Iterator[dict[str, Any]]:
    """One line an answer.

    Args:
        given: a set that is a benchmark.
        answers: greedy predictions, one a row.
        release: read as the release does, instead of strictly.
    """
    for p in answers:
        choice = p["released"] if release else p["verdict"]
        line = {
            "rewards": [1, 0] if choice == p["gold"] else [0, 1],
            "critic": p["response"],
        }
        match given.benchmark:
            case "VL-RewardBench":
                yield line | _vl(p, given.rows[p["row"]], choice)
            case "Multimodal RewardBench":
                yield line | _multimodal(p, choice)
            case _:
                kind = "video" if "video" in p["category"] else "image"
                yield line | {"id": p["item"], kind: p["category"]}


def _ways(greedy: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    return {
        "given": [p for p in greedy if p["order"] == ORDERS[0]],
        "swapped": [p for p in greedy if p["order"] == ORDERS[1]],
        "release": [p for p in greedy if p["gold"] == 1],
    }


def _vl(p: Mapping[str, Any], row: Row, choice: int | None) -> dict[str, Any]:
    """As the authors' inference script leaves it for their scorer, which leaves out what has
    no verdict (doesntMatch)."""
    answers = [row.answer1, row.answer2]
    if p["order"] == ORDERS[1]:
        answers.reverse()
    lowered = p["item"].lower()
    source = next((s for kind, s in _VL_SOURCES if kind in lowered), "vlfeedback")
    status = "doesntMatch" if choice is None else "agree" if choice == p["gold"] else "reject"
    return {
        "id": p["item"],
        "image_path": f"images/{source}/{p['item']}.jpg",
        "query": row.question,
        "response": answers,
        "ranking": [0, 1] if p["gold"] == 1 else [1, 0],
        "meta": {
            # the answers stand as listed; the script's reparse needs to know
            "random_number": 0,
            "filter_choice": f"Overall Judgment: Answer {choice or '-'} is better.",
            "filter_number": choice or -1,
            "flag_status": status,
        },
    }


def _multimodal(p: Mapping[str, Any], choice: int | None) -> dict[str, Any]:
    """As the authors' scorer reads it: `[[A]]` or `[[B]]` counts wherever it stands, so it may
    stand nowhere in the response itself."""
    verdict = {1: "\n[[A]]", 2: "\n[[B]]"}.get(choice or 0, "")
    return {
        "ID": p["item"],
        "Category": p["category"],
        "Label": "A" if p["gold"] == 1 else "B",
        "output": _TWO_BRACKETS.sub("[ ", p["response"]) + verdict,
        "Meta": {"Category": p["category"]},
    }
