# SPDX-License-Identifier: Apache-2.0
"""What is judged: the held-out rows, and the sets of `evaluate.sets`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1reward_api.resource.job import Format
from r1reward_trainer.data.rows import Row, SetRow
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
    """

    name: str
    benchmark: Benchmark | None
    rows: Sequence[Row]
    chosen: Sequence[int]


def item_of(row: Row) -> str:
    """What the row's pair belongs to: the benchmark's id, else the row's own."""
    return row.item if isinstance(row, SetRow) else row.id


def category_of(row: Row) -> str:
    """The benchmark's category or the path of the image; empty for other rows."""
    return row.category if isinstance(row, SetRow) else ""
