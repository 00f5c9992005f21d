# SPDX-License-Identifier: Apache-2.0
"""Scoring rules against figures of the paper and of the benchmarks' own files."""

from collections import Counter

import pytest

from r1reward_trainer.evaluation.benchmarks import (
    Judged,
    Score,
    accuracy_plus,
    macro,
    micro,
    mm_rlhf_category,
    multimodal_rewardbench_category,
    relative_gain,
    score,
    vl_rewardbench_category,
)
from r1reward_trainer.evaluation.published import PUBLISHED
from tests.unit.evaluation.made import VL_IDS


def split(release_compatible: bool) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for pair_id, count in VL_IDS.items():
        category = vl_rewardbench_category(pair_id, release_compatible=release_compatible)
        counts[category] += count
    return dict(counts)


def test_vl_rewardbench_is_split_as_its_authors_do_unless_the_release_is_asked_for():
    assert split(False) == {"General": 183, "Hallucination": 749, "Reasoning": 318}
    assert split(True) == {"General": 484, "Hallucination": 448, "Reasoning": 318}


def test_the_papers_vl_rewardbench_row_comes_of_the_releases_split():
    scores = {
        "General": Score(309, 484),
        "Hallucination": Score(384, 448),
        "Reasoning": Score(206, 318),
    }
    assert {k: round(s.accuracy, 2) for k, s in scores.items()} == {
        "General": 63.84,
        "Hallucination": 85.71,
        "Reasoning": 64.78,
    }
    assert micro(scores) == pytest.approx(71.92, abs=0.005)
    assert macro(scores) == pytest.approx(71.446, abs=0.0005)
    official = {
        name: Score(s.accuracy * weight / 100, weight)
        for (name, s), weight in zip(scores.items(), (183, 749, 318), strict=True)
    }
    assert micro(official) == pytest.approx(77.187, abs=0.001)


def test_mm_rlhf_counts_pairs_for_acc_and_whole_ids_for_acc_plus():
    sizes = [2] * 11 + [3] * 13 + [4] * 6 + [5] * 11 + [6] * 5
    assert (len(sizes), sum(sizes)) == (46, 170)
    # 25 ids all right; the other 21 hold the 33 wrong pairs, so that 137 of 170 are right.
    wrong = iter([2] * 12 + [1] * 9)
    pairs = [
        Judged(f"id-{number}", float(place >= faults), "mcq/1.png")
        for number, (size, faults) in enumerate(
            (size, 0 if number < 25 else next(wrong)) for number, size in enumerate(sizes)
        )
        for place in range(size)
    ]
    found = score("MM-RLHF-RewardBench", pairs)
    assert round(found.micro, 2) == 80.59
    assert found.accuracy_plus == pytest.approx(54.35, abs=0.005)
    assert round(Score(147, 170).accuracy, 2) == 86.47
    assert round(Score(31, 46).accuracy, 2) == 67.39


def test_an_id_counts_for_acc_plus_only_when_right_in_both_orders():
    assert accuracy_plus([Judged("a", 1.0), Judged("a", 0.5), Judged("b", 1.0)]) == 50


@pytest.mark.parametrize(
    ("sub_scores", "unweighted", "weighted"),
    [
        ((77.5, 74.0, 74.9, 83.1, 79.6, 99.6, 86.5), 82.17, 82.21),
        ((58.4, 60.7, 78.1, 76.3, 71.3, 72.0, 86.8), 71.94, 73.59),
    ],
)
def test_multimodal_rewardbench_has_two_overalls_that_differ(sub_scores, unweighted, weighted):
    sizes = (623, 654, 630, 514, 584, 508, 1198)
    scores = {
        str(i): Score(s * n / 100, n)
        for i, (s, n) in enumerate(zip(sub_scores, sizes, strict=True))
    }
    assert macro(scores) == pytest.approx(unweighted, abs=0.005)
    assert micro(scores) == pytest.approx(weighted, abs=0.005)


def test_safety_and_reasoning_are_split_by_id():
    assert [
        multimodal_rewardbench_category(i, c)
        for i, c in (
            ("PAIRS-1", "safety"),
            ("hateful-1", "safety"),
            ("MathVista-1", "reasoning"),
            ("livecode-1", "reasoning"),
            ("x", "vqa"),
        )
    ] == ["safety/bias", "safety/toxicity", "reasoning/math", "reasoning/coding", "vqa"]


def test_mm_rlhf_categories_come_from_the_path():
    assert [mm_rlhf_category(p) for p in ("mcq/073712.png", "a/video/1.mp4", "else")] == [
        "mcq",
        "video",
        "other",
    ]


def test_the_papers_gains_are_relative_and_those_of_five_votes():
    gains = [(85.3, 82.4), (75.3, 66.31), (82.4, 71.9), (71.92, 66.31), (82.2, 71.9)]
    assert [round(relative_gain(*g), 1) for g in gains] == [3.5, 13.6, 14.6, 8.5, 14.3]


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="VL-RewardBench: no pairs"):
        score("VL-RewardBench", [])


def test_published_rows_agree_with_themselves_and_say_what_they_cannot_be_compared_with():
    for benchmark, rows in PUBLISHED.items():
        for row in rows:
            assert row.caveat, (benchmark, row.model)
            if len(row.categories) == 7 and row.macro is not None:
                unweighted = sum(row.categories.values()) / 7
                assert unweighted == pytest.approx(row.macro, abs=0.1), row.model
    greedy = PUBLISHED["VL-RewardBench"][0]
    assert sum(greedy.categories.values()) / 3 == pytest.approx(greedy.macro, abs=0.01)
