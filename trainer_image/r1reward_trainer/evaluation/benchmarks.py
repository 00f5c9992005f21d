# SPDX-License-Identifier: Apache-2.0
"""Scoring rules of the three public benchmarks of the paper (section 5), as pure functions.

Each prints more than one overall figure, and papers mix them up; here all are given by name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Benchmark = Literal["VL-RewardBench", "Multimodal RewardBench", "MM-RLHF-RewardBench"]


@dataclass(frozen=True)
class Judged:
    """One judged pair of a benchmark.

    Attributes:
        id: the benchmark's id; not unique in VL-RewardBench and MM-RLHF-RewardBench.
        correct: 0 to 1; the mean over both orders, or 0 and 1 under the published protocol.
        category: the benchmark's own category field (Multimodal RewardBench), or the path of
            the image or video (MM-RLHF-RewardBench).
    """

    id: str
    correct: float
    category: str = ""


@dataclass(frozen=True)
class Score:
    """A share of pairs.

    Attributes:
        correct: sum over the pairs.
        total: number of pairs.
    """

    correct: float
    total: int

    @property
    def accuracy(self) -> float:
        """Share in percent."""
        return 100 * self.correct / self.total


@dataclass(frozen=True)
class BenchmarkScores:
    """Scores of one benchmark, in percent.

    Attributes:
        categories: by name.
        micro: share of all pairs.
        macro: unweighted mean of the categories.
        accuracy_plus: share of ids whose pairs are all right; MM-RLHF-RewardBench only.
    """

    categories: dict[str, Score]
    micro: float
    macro: float
    accuracy_plus: float | None = None


def score(
    benchmark: Benchmark | None, pairs: Sequence[Judged], *, release_compatible: bool = False
) -> BenchmarkScores:
    """Scores by the benchmark's rules; other sets by their category as it is.

    Headline figure: VL-RewardBench prints `micro` as Overall and `macro` as Macro; the paper's
    Overall of Multimodal RewardBench is `macro`, its shipped scorer prints `micro`;
    MM-RLHF-RewardBench prints `micro` as ACC and `accuracy_plus` as ACC+.

    Args:
        benchmark: whose rules.
        pairs: at least one.
        release_compatible: VL-RewardBench by the released scorer's case-sensitive split.

    Raises:
        ValueError: without pairs.
    """
    if not pairs:
        raise ValueError(f"{benchmark}: no pairs to score")
    scores = by_category(pairs, lambda pair: _category(benchmark, pair, release_compatible))
    plus = accuracy_plus(pairs) if benchmark == "MM-RLHF-RewardBench" else None
    return BenchmarkScores(scores, micro(scores), macro(scores), plus)


def by_category(pairs: Iterable[Judged], category: Callable[[Judged], str]) -> dict[str, Score]:
    """Scores by category, in the order of first appearance."""
    scores: dict[str, Score] = {}
    for pair in pairs:
        name = category(pair)
        old = scores.get(name, Score(0, 0))
        scores[name] = Score(old.correct + pair.correct, old.total + 1)
    return scores


def micro(scores: Mapping[str, Score]) -> float:
    """Share of all pairs, in percent."""
    return Score(
        sum(s.correct for s in scores.values()), sum(s.total for s in scores.values())
    ).accuracy


def macro(scores: Mapping[str, Score]) -> float:
    """Unweighted mean of the categories, in percent."""
    return sum(s.accuracy for s in scores.values()) / len(scores)


def accuracy_plus(pairs: Iterable[Judged]) -> float:
    """ACC+: share of ids whose pairs are all right, in percent."""
    right: dict[str, bool] = {}
    for pair in pairs:
        right[pair.id] = right.get(pair.id, True) and pair.correct == 1
    return 100 * sum(right.values()) / len(right)


def vl_rewardbench_category(pair_id: str, *, release_compatible: bool = False) -> str:
    """General, Hallucination or Reasoning, from the id.

    Args:
        pair_id: such as RLAIF-V-14.
        release_compatible: as R1-Reward's scorer does it: upper-case RLHF-V and RLAIF-V are
            missed and counted as General, which makes its category and macro figures
            incomparable with the leaderboard's.
    """
    text = pair_id if release_compatible else pair_id.lower()
    if "mmmu" in text or "mathverse" in text:
        return "Reasoning"
    if "hallucination" in text or "rlhf" in text or "rlaif" in text:
        return "Hallucination"
    return "General"


def multimodal_rewardbench_category(pair_id: str, category: str) -> str:
    """The category; safety and reasoning are split in two by the id."""
    match category:
        case "safety":
            return "safety/bias" if pair_id.lower().startswith("pairs") else "safety/toxicity"
        case "reasoning":
            return "reasoning/math" if pair_id.lower().startswith("math") else "reasoning/coding"
        case _:
            return category


def mm_rlhf_category(media_path: str) -> str:
    """The first of the five category words in the path of the image or video."""
    for word in ("mcq", "long", "short", "safety", "video"):
        if word in media_path:
            return word
    return "other"


def _category(benchmark: Benchmark | None, pair: Judged, release_compatible: bool) -> str:
    match benchmark:
        case "VL-RewardBench":
            return vl_rewardbench_category(pair.id, release_compatible=release_compatible)
        case "Multimodal RewardBench":
            return multimodal_rewardbench_category(pair.id, pair.category)
        case "MM-RLHF-RewardBench":
            return mm_rlhf_category(pair.category)
        case None:
            return pair.category


def relative_gain(new: float, old: float) -> float:
    """Gain over the old score, in percent of it: the paper's 3.5, 13.5 and 14.6 %."""
    return 100 * (new - old) / old
