# SPDX-License-Identifier: Apache-2.0
"""Figures that others have published on the benchmarks, with what must be known to read them.

In percent, as printed (R1-Reward, arXiv 2505.02835, section 5; BaseReward, arXiv 2509.16127, for
its own rows). None of them was measured here.
"""

from r1reward_api.base import ApiModel
from r1reward_trainer.evaluation.benchmarks import Benchmark

_CHOSEN_FIRST = "better answer always first"
_SPLIT = "categories and macro in the case-sensitive split"
_TABLE = "from R1-Reward's table; its order of answers is not stated there"
_MEAN = "overall is the mean of the categories"


class Published(ApiModel):
    """One published row."""

    model: str
    """Whose figures."""
    micro: float | None = None
    """Share of all pairs."""
    macro: float | None = None
    """Unweighted mean of the categories."""
    accuracy_plus: float | None = None
    """ACC+."""
    categories: dict[str, float] = {}
    """By category, as printed."""
    caveat: str
    """What it must not be compared with."""


def _vl(model: str, micro: float, macro: float | None, caveat: str, *by: float) -> Published:
    names = ("General", "Hallucination", "Reasoning")
    return Published(
        model=model,
        micro=micro,
        macro=macro,
        categories=dict(zip(names, by, strict=False)),
        caveat=caveat,
    )


def _mm(model: str, acc: float, plus: float, caveat: str, *by: float) -> Published:
    names = ("mcq", "long", "short", "safety", "video")
    return Published(
        model=model,
        micro=acc,
        accuracy_plus=plus,
        categories=dict(zip(names, by, strict=False)),
        caveat=caveat,
    )


def _multi(
    model: str, macro: float | None, micro: float | None, caveat: str, *by: float
) -> Published:
    names = (
        "correctness",
        "preference",
        "knowledge",
        "reasoning/math",
        "reasoning/coding",
        "safety/bias",
        "vqa",
    )
    return Published(
        model=model,
        micro=micro,
        macro=macro,
        categories=dict(zip(names, by, strict=False)),
        caveat=caveat,
    )


PUBLISHED: dict[Benchmark, list[Published]] = {
    "VL-RewardBench": [
        _vl("R1-Reward", 71.92, 71.44, f"{_CHOSEN_FIRST}; {_SPLIT}; its training data have sources "
            "of this benchmark", 63.84, 85.71, 64.78),
        _vl("R1-Reward, Voting@15", 76.46, 76.36, f"{_CHOSEN_FIRST}; {_SPLIT}",
            66.32, 89.06, 73.70),
        _vl("R1-Reward, SFT only", 64.80, None, f"{_CHOSEN_FIRST}; {_SPLIT}; the overall does not "
            "follow from the categories (off by 0.4)", 59.92, 72.27, 60.01),
        _vl("Claude-3.7-Sonnet", 66.31, 66.53, _TABLE),
        _vl("GPT-4o", 65.8, 62.4, _TABLE),
        _vl("IXC-2.5-Reward", 65.8, 70.0, f"{_TABLE}; its script counts ties as right"),
        _vl("MM-RLHF-Reward", 50.15, 51.01, _TABLE),
        _vl("BaseReward-7B", 82.16, 80.85, "scalar head, so no order of answers; from its paper"),
    ],
    "MM-RLHF-RewardBench": [
        _mm("R1-Reward", 80.59, 54.35, f"{_CHOSEN_FIRST}; video frames in the order of an unsorted "
            "listing", 80.95, 89.19, 82.35, 75.00, 72.00),
        _mm("R1-Reward, Voting@15", 86.47, 67.39, _CHOSEN_FIRST,
            83.33, 97.30, 91.18, 78.12, 80.00),
        _mm("Claude-3.7-Sonnet", 82.35, 65.22, _TABLE),
        _mm("GPT-4o", 58.23, 26.01, _TABLE),
        _mm("IXC-2.5-Reward", 71.18, 50.0, _TABLE),
        _mm("MM-RLHF-Reward", 82.0, 63.0, _TABLE),
        _mm("BaseReward-7B", 91.76, 80.43, "scalar head, so no order of answers; from its paper"),
    ],
    "Multimodal RewardBench": [
        _multi("R1-Reward", 82.2, None, f"{_CHOSEN_FIRST}; {_MEAN}; safety is bias alone",
               77.5, 74.0, 74.9, 83.1, 79.6, 99.6, 86.5),
        _multi("R1-Reward, Voting@15", 83.3, None, f"{_CHOSEN_FIRST}; {_MEAN}",
               78.0, 77.2, 74.6, 81.3, 85.8, 99.4, 87.0),
        _multi("R1-Reward, SFT only", 72.5, None, "from BaseReward's paper",
               67.6, 64.3, 63.8, 74.9, 57.4, 95.7, 83.8),
        _multi("Claude-3.7-Sonnet", 71.9, None, f"{_TABLE}; {_MEAN}",
               58.4, 60.7, 78.1, 76.3, 71.3, 72.0, 86.8),
        _multi("GPT-4o", 70.8, 72.8, f"{_TABLE}; {_MEAN}"),
        _multi("IXC-2.5-Reward", 66.6, None, f"{_TABLE}; {_MEAN}"),
        _multi("MM-RLHF-Reward", 67.1, None, f"{_TABLE}; {_MEAN}"),
        _multi("BaseReward-7B", None, 72.8, "scalar head; its overall is the share of all pairs"),
    ],
}  # fmt: skip
"""By benchmark."""
