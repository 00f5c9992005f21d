# SPDX-License-Identifier: Apache-2.0
"""What is judged: the held-out rows, and the sets of `evaluate.sets`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1reward_api.resource.job import Format
from r1reward_trainer.data.rows import Row, SetRow
from r1reward_trainer.data.split import group_by_image, image_hash
from r1reward_trainer.evaluation.benchmarks import Benchmark

BENCHMARKS: Mapping[Format, Benchmark] = {
    "VLRewardBench": "VL-RewardBench",
    "VLRewardBenchRelease": "VL-RewardBench",
    "MultimodalRewardBench": "Multimodal RewardBench",
    "MMRLHFRewardBench": "MM-RLHF-RewardBench",
}
"""By whose rules rows of a format are scored; others by their category, if they have one."""


@dataclass(frozen=True)
class EvaluationSet:
    """Rows to judge.

    Attributes:
        name: HELDOUT, or as `evaluate.sets` names it.
        benchmark: by whose rules it is scored.
        rows: all of them.
        chosen: positions of the rows to use, rising.
        clusters: by position, the first of the chosen rows that it hangs together with.
    """

    name: str
    benchmark: Benchmark | None
    rows: Sequence[Row]
    chosen: Sequence[int]
    clusters: Mapping[int, int]


def evaluation_set(
    name: str, benchmark: Benchmark | None, rows: Sequence[Row], chosen: Sequence[int]
) -> EvaluationSet:
    """The chosen rows, with what hangs together among them."""
    return EvaluationSet(name, benchmark, rows, chosen, clusters(rows, chosen))


def clusters(rows: Sequence[Row], chosen: Sequence[int]) -> dict[int, int]:
    """By position the first of the rows that it hangs together with: by an image, or by the
    benchmark's item, and so on from those. A judge that is wrong about an image is so in all rows
    about it: they are no independent observations."""
    marks = []
    for position in chosen:
        row = rows[position]
        item = b"item " + item_of(row).encode()
        marks.append([item, *(image_hash(image) for image in row.images)])
    return {
        chosen[place]: chosen[group.rows[0]]
        for group in group_by_image(marks)
        for place in group.rows
    }


def item_of(row: Row) -> str:
    """What the row's pair belongs to: the benchmark's id, else the row's own."""
    return row.item if isinstance(row, SetRow) else row.id


def category_of(row: Row) -> str:
    """The benchmark's category or the path of the image; empty for other rows."""
    return row.category if isinstance(row, SetRow) else ""
