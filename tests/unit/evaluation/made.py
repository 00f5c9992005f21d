# SPDX-License-Identifier: Apache-2.0
"""Rows of the three benchmarks' shape: their ids, counts and splits, and made-up texts
(acceptance facts 20, 22 and 23 of the paper's method)."""

from r1reward_trainer.data.rows import SetRow
from tests.unit.evaluation.builders import set_row

VL_IDS = {
    "hallucination_pair-1003": 448,
    "RLAIF-V-14": 233,
    "RLHF-V-31": 68,
    "mathverse_1294": 167,
    "mmmu_pro_test_Electronics_6": 151,
    "wildvision-battle-13": 173,
    "jailbreak-Fraud-29": 7,
    "LRVInstruction-000000007746": 1,
    "politics-Gov_Decision-124": 1,
    "svit-complex_reasoning-876": 1,
}
"""One id of each kind in VL-RewardBench, and how many there are of the kind."""

MM_RLHF_SIZES = {
    "mcq": (6, 6, 5, 5, 5, 3, 3, 3, 3, 3),
    "long": (6, 5, 5, 4, 4, 3, 3, 3, 2, 2),
    "short": (5, 5, 4, 4, 4, 4, 2, 2, 2, 2),
    "safety": (6, 6, 5, 5, 5, 5),
    "video": (3, 3, 3, 3, 3, 2, 2, 2, 2, 2),
}
"""Pairs of each id in MM-RLHF-RewardBench, by category."""

MULTIMODAL = {
    ("nocaps", "correctness"): 623,
    ("vibe-eval", "preference"): 654,
    ("mmmu", "knowledge"): 630,
    ("mathvista", "reasoning"): 514,
    ("codevqa", "reasoning"): 584,
    ("pairs", "safety"): 508,
    ("vqav2", "vqa"): 1198,
}
"""What the ids of Multimodal RewardBench begin with and its categories, without the part that may
not be passed on."""


def vl_rewardbench() -> list[SetRow]:
    """1,250 rows, 1,225 distinct ids, 5 repeated pairs."""
    kinds = [kind for kind, count in VL_IDS.items() for _ in range(count)]
    rows = [
        set_row(i, item=f"{kind}-{i}", category="", gold=1 + i % 2, question=f"What is {i}?")
        for i, kind in enumerate(kinds)
    ]
    for i in range(25):
        first = rows[2 * i]
        same = i < 5
        rows[2 * i + 1] = set_row(
            2 * i + 1,
            item=first.item,
            category="",
            gold=first.gold if same else 1 + i % 2,
            question=first.question if same else f"And what is {i}?",
        )
    return rows


def mm_rlhf_rewardbench() -> list[SetRow]:
    """170 rows, 46 ids."""
    pairs = [
        (f"{category}_{number}", f"{category}/{number}.png")
        for category, sizes in MM_RLHF_SIZES.items()
        for number, size in enumerate(sizes)
        for _ in range(size)
    ]
    return [
        set_row(i, item=item, category=path, gold=1 + i % 2) for i, (item, path) in enumerate(pairs)
    ]


def multimodal_rewardbench() -> list[SetRow]:
    """4,711 rows."""
    pairs = [
        (f"{begin}_{number}", category)
        for (begin, category), count in MULTIMODAL.items()
        for number in range(count)
    ]
    return [
        set_row(i, item=item, category=category, gold=1 + i % 2)
        for i, (item, category) in enumerate(pairs)
    ]
