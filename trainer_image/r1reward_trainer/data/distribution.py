# SPDX-License-Identifier: Apache-2.0
"""Quantiles of many whole numbers in little memory."""

from collections import Counter

_DIGITS = 3


class Distribution:
    """Counts values rounded to three digits, at most 900 for each power of ten."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._least: int | None = None
        self._most = 0
        self._sum = 0

    def add(self, value: int) -> None:
        """Counts a value, which must not be negative."""
        self._counts[_rounded(value)] += 1
        self._least = value if self._least is None else min(self._least, value)
        self._most = max(self._most, value)
        self._sum += value

    def figures(self) -> dict[str, float]:
        """min, p50, p95, p99 and max; the quantiles are exact below 1000. Empty without values."""
        total = self._counts.total()
        if self._least is None:
            return {}
        quantiles = {f"p{percent}": self._quantile(percent / 100) for percent in (50, 95, 99)}
        mean = round(self._sum / total, 1)
        return {"min": self._least, **quantiles, "max": self._most, "mean": mean}

    def _quantile(self, share: float) -> int:
        wanted = share * self._counts.total()
        for value in sorted(self._counts):
            wanted -= self._counts[value]
            if wanted <= 0:
                return min(value, self._most)
        return self._most


def _rounded(value: int) -> int:
    unit = 10 ** max(0, len(str(value)) - _DIGITS)
    return (value + unit // 2) // unit * unit
