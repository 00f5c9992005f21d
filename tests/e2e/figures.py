# SPDX-License-Identifier: Apache-2.0
"""A report's figures once more, in the plainest way, out of the stored answers alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

GREEDY = 0


def figures(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By the report's names, of one model's greedy answers to one set.

    Args:
        answers: rows of predictions.parquet; each row of the set has one in either order.
    """
    greedy = [a for a in answers if a["sample"] == GREEDY]
    pairs: dict[int, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for answer in greedy:
        pairs[answer["row"]][answer["order"]] = answer
    said = [a["verdict"] for a in greedy if a["verdict"] is not None]
    first = [a["verdict"] == 1 for a in greedy if a["gold"] == 1]
    second = [a["verdict"] == 2 for a in greedy if a["gold"] == 2]
    found = {
        "accuracy": share([a["verdict"] == a["gold"] for a in greedy]),
        "chosenFirst": share(first),
        "chosenSecond": share(second),
        "bothRight": share(
            [all(a["verdict"] == a["gold"] for a in p.values()) for p in pairs.values()]
        ),
        "orderAgreement": share([agree(pair) for pair in pairs.values()]),
        "invalid": 1 - len(said) / len(greedy),
        "tokensMean": sum(a["tokens"] for a in greedy) / len(greedy),
    }
    return found | ({"saysFirst": share([verdict == 1 for verdict in said])} if said else {})


def agree(pair: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether both orders chose the same answer; swapped, answer 1 stands second."""
    given, swapped = pair["Given"]["verdict"], pair["Swapped"]["verdict"]
    return None not in (given, swapped) and given == 3 - swapped


def share(right: Sequence[bool]) -> float:
    """Of those that are True."""
    return sum(right) / len(right)
