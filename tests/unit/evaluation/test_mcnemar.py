# SPDX-License-Identifier: Apache-2.0
"""McNemar's exact test against its binomial formula."""

import math

import numpy as np
import pytest

from r1reward_trainer.evaluation.mcnemar import McNemar, mcnemar


def models(both: int, after: int, before: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    later = [True] * both + [True] * after + [False] * before + [False] * neither
    earlier = [True] * both + [False] * after + [True] * before + [False] * neither
    return np.array(later), np.array(earlier)


@pytest.mark.parametrize(("after", "before"), [(9, 1), (1, 9), (5, 5), (12, 3)])
def test_only_rows_on_which_they_differ_count(after: int, before: int) -> None:
    n, k = after + before, min(after, before)
    p = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    for both, neither in ((0, 0), (40, 7)):
        found = mcnemar(*models(both, after, before, neither))
        assert (found.only_after, found.only_before) == (after, before)
        assert found.p_value == pytest.approx(p)


def test_equal_models_do_not_differ() -> None:
    same = np.array([True, False, True])
    assert mcnemar(same, same) == McNemar(0, 0, 1.0)


def test_other_rows_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="2 rows cannot be paired with 3"):
        mcnemar(np.array([True, False]), np.array([True, False, True]))
