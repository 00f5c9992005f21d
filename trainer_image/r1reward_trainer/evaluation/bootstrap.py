# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals by resampling rows, those that hang together as one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Coverage of the intervals."""

_CHUNK_VALUES = 4_000_000
"""Values drawn at once, which bounds the memory."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its percentile interval.

    Attributes:
        value: the mean.
        low, high: ends of the interval with coverage LEVEL.
    """

    value: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.margin:.3f}"


def bootstrap_mean(
    values: NDArray[np.float64], clusters: NDArray[np.int64], samples: int, seed: int
) -> Estimate:
    """Mean over rows with its bootstrap interval.

    Whole clusters are drawn, so the two orders (and all votes) of a row stay together, and rows
    about one image do: they are not independent, and counting them as such makes intervals too
    narrow. (Field and Welsh, "Bootstrapping clustered data", 2007.)

    Args:
        values: [rows], one figure a row.
        clusters: [rows], the same number for rows that hang together.
        samples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: without rows.
    """
    rows = len(values)
    if rows == 0:
        raise ValueError("no rows to resample: at least one held-out row is needed")
    _, place = np.unique(clusters, return_inverse=True)
    sizes, sums = np.bincount(place), np.bincount(place, weights=values)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_VALUES // len(sizes))
    means: list[NDArray[np.float64]] = []
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        drawn = generator.integers(0, len(sizes), size=(count, len(sizes)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high))


def bootstrap_gain(
    after: NDArray[np.float64],
    before: NDArray[np.float64],
    clusters: NDArray[np.int64],
    samples: int,
    seed: int,
) -> Estimate:
    """Mean of after − before over the same rows, paired, which is tighter than two intervals.

    Raises:
        ValueError: when the rows differ in number, or there are none.
    """
    if after.shape != before.shape:
        raise ValueError(f"{len(after)} rows cannot be paired with {len(before)}")
    return bootstrap_mean(after - before, clusters, samples, seed)
