# SPDX-License-Identifier: Apache-2.0
"""Files of the benchmarks' shapes, with their counts of rows, ids and categories."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1reward_api.resource.job import Format
from r1reward_trainer.data.formats.registry import importer_of
from r1reward_trainer.data.intake import Intake, take_in
from r1reward_trainer.data.objects import Folder
from r1reward_trainer.data.rows import SetRow
from r1reward_trainer.data.schema import parse_set_row
from r1reward_trainer.data.sources import Source, find_files
from r1reward_trainer.evaluation.benchmarks import (
    mm_rlhf_category,
    multimodal_rewardbench_category,
    vl_rewardbench_category,
)
from tests.unit.data.images import encoded, photo

IMAGE = encoded(photo(0, 16, 16))

VL_IDS = (
    [f"hallucination_pair-{n}" for n in range(448)]
    + [f"RLAIF-V-{n}" for n in range(200)]
    + [f"RLHF-V-{n}" for n in range(101)]
    + [f"mathverse_{n}" for n in range(200)]
    + [f"mmmu_pro_{n}" for n in range(118)]
    + [f"wildvision-battle-{n}" for n in range(183)]
)
"""1,250 ids; 25 of them twice below."""
MM_PAIRS = {
    "mcq": [6, 6, 6, 5, 4, 3, 3, 3, 3, 3],
    "long": [5, 5, 5, 5, 4, 4, 3, 2, 2, 2],
    "short": [5, 5, 4, 4, 4, 3, 3, 2, 2, 2],
    "safety": [6, 6, 5, 5, 5, 5],
    "video": [3, 3, 3, 3, 3, 2, 2, 2, 2, 2],
}
"""Pairs of each id, by category."""
MULTIMODAL = {
    ("correctness", "nocaps"): 623,
    ("preference", "visitbench"): 654,
    ("knowledge", "mmmu"): 630,
    ("reasoning", "mathvista"): 514,
    ("reasoning", "EMMA-Coding"): 584,
    ("safety", "pairs"): 508,
    ("vqa", "MMBench"): 1198,
}


def imported(path: Path, format: Format) -> tuple[list[SetRow], Intake]:
    source = Source(
        find_files("set", str(path), lambda uri: Folder(Path(uri))), importer_of(format)
    )
    rows: list[SetRow] = []
    intake = take_in(
        [source],
        lambda record, media: parse_set_row(record, 4, media),
        lambda row: None,
        rows.append,
        path.parent / "bad-rows.jsonl",
        path.parent,
        None,
        lambda rows: None,
    )
    assert (path.parent / "bad-rows.jsonl").read_text() == ""
    return rows, intake


def vl_records() -> list[dict[str, Any]]:
    ids = [*VL_IDS[:-25], *VL_IDS[-50:-25]]
    texts = [f"question {n}" for n in range(len(ids))]
    texts[-5:] = texts[-30:-25]  # five of the ids' second rows repeat the whole triple
    return [
        {"id": name, "prompt": text, "chosen": f"good {text}", "rejected": f"bad {text}"}
        for name, text in zip(ids, texts, strict=True)
    ]


def categories(rows: list[SetRow], release_compatible: bool) -> dict[str, int]:
    return dict(
        Counter(
            vl_rewardbench_category(r.item, release_compatible=release_compatible) for r in rows
        )
    )


def test_vl_rewardbench_of_the_release_has_its_rows_ids_and_both_splits(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img/0.png").write_bytes(IMAGE)
    lines = [json.dumps({**r, "image": "/data/vl_reward/img/0.png"}) for r in vl_records()]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    rows, intake = imported(tmp_path / "data.jsonl", "VLRewardBenchRelease")
    items = Counter(row.item for row in rows)
    assert (len(rows), len(items), max(items.values())) == (1250, 1225, 2)
    figures = intake.quality.figures()
    assert (figures["duplicates"]["exact"], figures["repeatedIds"]) == (5, 25)
    assert figures["goldAsRead"] == {"1": 1250, "2": 0}
    official = {"Hallucination": 749, "Reasoning": 318, "General": 183}
    assert categories(rows, release_compatible=False) == official
    released = {"Hallucination": 448, "General": 484, "Reasoning": 318}
    assert categories(rows, release_compatible=True) == released


def test_the_official_vl_rewardbench_gives_the_same_pairs(tmp_path: Path) -> None:
    table = [
        {
            "id": r["id"],
            "query": r["prompt"],
            "response": [r["chosen"], r["rejected"]][:: 1 if n % 2 else -1],
            "image": {"bytes": IMAGE, "path": None},
            "human_ranking": [0, 1] if n % 2 else [1, 0],
            "query_source": "",
            "rationale": "",
        }
        for n, r in enumerate(vl_records())
    ]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "test.parquet")
    rows, intake = imported(tmp_path / "test.parquet", "VLRewardBench")
    assert len(rows) == 1250
    assert all((r.answer1, r.answer2)[r.gold - 1].startswith("good") for r in rows)
    assert intake.quality.figures()["goldAsRead"] == {"1": 625, "2": 625}
    assert categories(rows, release_compatible=False)["Hallucination"] == 749


def test_mm_rlhf_rewardbench_has_its_pairs_ids_and_frames(tmp_path: Path) -> None:
    lines = []
    for category, sizes in MM_PAIRS.items():
        for number, pairs in enumerate(sizes):
            media = f"{category}/{number}" if category == "video" else f"{category}/{number}.png"
            files = [f"{media}/{n}.png" for n in range(12)] if category == "video" else [media]
            for file in files:
                (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / file).write_bytes(IMAGE)
            kind = "video" if category == "video" else "image"
            lines += [
                {"id": f"{category}-{number}", "prompt": "q", "chosen": f"good {n}",
                 "rejected": "bad", kind: media, "chosen_reason": "", "rejected_reason": ""}
                for n in range(pairs)
            ]  # fmt: skip
    (tmp_path / "bench.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows, _ = imported(tmp_path / "bench.jsonl", "MMRLHFRewardBench")
    assert Counter(mm_rlhf_category(row.category) for row in rows) == {
        "mcq": 42, "long": 37, "short": 34, "safety": 32, "video": 25,
    }  # fmt: skip
    pairs = Counter(row.item for row in rows)
    assert (len(rows), len(pairs)) == (170, 46)
    assert Counter(pairs.values()) == {2: 11, 3: 13, 4: 6, 5: 11, 6: 5}
    assert {len(row.images) for row in rows if row.category.startswith("video")} == {4}


def test_multimodal_rewardbench_has_its_categories(tmp_path: Path) -> None:
    records = [
        {
            "ID": f"{source}_{n}",
            "Category": category,
            "Image": "images/0.png",
            "Text": "q",
            "Output1": "one",
            "Output2": "two",
            "Better": f"Output{1 + n % 2}",
        }
        for (category, source), rows in MULTIMODAL.items()
        for n in range(rows)
    ]
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0.png").write_bytes(IMAGE)
    (tmp_path / "all_data.json").write_text(json.dumps(records, indent=2))
    rows, _ = imported(tmp_path / "all_data.json", "MultimodalRewardBench")
    found = Counter(multimodal_rewardbench_category(r.item, r.category) for r in rows)
    counts = {"reasoning/math": 514, "reasoning/coding": 584, "safety/bias": 508}
    named = {category: n for (category, _), n in MULTIMODAL.items()} | counts
    del named["reasoning"], named["safety"]
    assert found == named
    assert len(rows) == 4711
