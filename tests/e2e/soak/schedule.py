# SPDX-License-Identifier: Apache-2.0
"""Which fault comes when. Pure: a seed goes in, an endless sequence comes out."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SHORTEST_PAUSE, LONGEST_PAUSE = 10.0, 60.0


@dataclass(frozen=True)
class Planned:
    """One draw.

    Attributes:
        pause: seconds after the end of the fault before.
        order: all faults, the drawn one first: the next ones stand in where it finds nothing
            to hit, so that a seed gives the same sequence whatever runs at the moment.
        choice: 0 … 1, which of its candidates is hit.
    """

    pause: float
    order: tuple[str, ...]
    choice: float


def schedule(seed: int, weights: Mapping[str, float]) -> Iterator[Planned]:
    """The faults of a seed, without end.

    Args:
        seed: any integer.
        weights: how often each fault is drawn, by name; more than 0.
    """
    draw = random.Random(seed)
    while True:
        # Weighted order without replacement: the smallest of exponential waiting times first.
        waits = {name: draw.expovariate(weight) for name, weight in weights.items()}
        yield Planned(
            pause=round(draw.uniform(SHORTEST_PAUSE, LONGEST_PAUSE), 1),
            order=tuple(sorted(waits, key=lambda n: waits[n])),
            choice=draw.random(),
        )


def pick(candidates: Sequence[T], choice: float) -> T:
    """The candidate of a choice of 0 … 1; there is at least one."""
    return candidates[min(int(choice * len(candidates)), len(candidates) - 1)]
