# SPDX-License-Identifier: Apache-2.0
"""McNemar's exact test: do two models differ on the same rows by more than chance?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest


@dataclass(frozen=True)
class McNemar:
    """Two models on the same rows, each right or wrong on a row.

    Attributes:
        only_after: rows that only the later model has right.
        only_before: rows that only the earlier one has right.
        p_value: two-sided and exact; 1 where they differ on no row.
    """

    only_after: int
    only_before: int
    p_value: float


def mcnemar(after: NDArray[np.bool_], before: NDArray[np.bool_]) -> McNemar:
    """Compares two models.

    Args:
        after: [rows], whether the later model has the row right.
        before: [rows], the earlier one.

    Raises:
        ValueError: when the rows differ in number.
    """
    if after.shape != before.shape:
        raise ValueError(f"{len(after)} rows cannot be paired with {len(before)}")
    only_after, only_before = int((after & ~before).sum()), int((before & ~after).sum())
    differing = only_after + only_before
    p_value = float(binomtest(only_after, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(only_after, only_before, p_value)
