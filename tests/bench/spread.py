# SPDX-License-Identifier: Apache-2.0
"""How far measured values lie apart. The standard library alone: every benchmark can import it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Seconds, rates or ratios over the rounds: median and the extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value, to four digits."""
        found = (statistics.median(values), min(values), max(values))
        return cls(*(float(f"{value:.4g}") for value in found))
