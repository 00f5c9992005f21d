# SPDX-License-Identifier: Apache-2.0
"""Intervals by resampling rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1reward_trainer.evaluation.bootstrap import Estimate, bootstrap_gain, bootstrap_mean

RANDOM = np.random.default_rng(0)


def independent(values: Any, samples: int, seed: int) -> Estimate:
    """Of rows of which none has to do with another."""
    return bootstrap_mean(values, np.arange(len(values)), samples, seed)


def independent_gain(after: Any, before: Any, samples: int, seed: int) -> Estimate:
    return bootstrap_gain(after, before, np.arange(len(after)), samples, seed)


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly_the_same():
    values = RANDOM.integers(0, 3, 200) / 2
    first, again, other = (independent(values, 2000, seed) for seed in (1, 1, 2))
    assert first == again
    assert other.low == pytest.approx(first.low, abs=0.01)


def test_the_interval_is_the_normal_one_where_that_holds():
    values = RANDOM.integers(0, 2, 1000).astype(float)
    margin = 1.96 * values.std() / np.sqrt(len(values))
    assert independent(values, 4000, 0).margin == pytest.approx(margin, rel=0.06)


def test_both_orders_of_a_row_stay_together():
    """Two orders that always agree are one observation, not two."""
    by_row = RANDOM.integers(0, 2, 300).astype(float)
    together = independent(by_row, 2000, 0).margin
    as_if_independent = independent(np.repeat(by_row, 2), 2000, 0).margin
    assert together == pytest.approx(as_if_independent * np.sqrt(2), rel=0.1)


def test_rows_that_hang_together_count_as_one_observation():
    by_image = RANDOM.integers(0, 2, 300).astype(float)
    clusters = np.repeat(np.arange(300), 4)[RANDOM.permutation(1200)]
    found = bootstrap_mean(by_image[clusters], clusters, 2000, 0)
    assert found.margin == pytest.approx(independent(by_image, 2000, 0).margin, rel=0.1)
    assert found.margin > 1.8 * independent(by_image[clusters], 2000, 0).margin


def test_a_large_cluster_weighs_as_its_rows_do():
    values = np.concatenate([np.ones(60), np.tile([0.0, 1.0], 20)])
    clusters = np.concatenate([np.zeros(60, dtype=int), np.arange(1, 41)])
    found = bootstrap_mean(values, clusters, 2000, 0)
    assert found.value == values.mean()
    assert found.low < 0.55, "without the large cluster only half of the rows are right"


def test_intervals_of_clustered_rows_hold_the_truth_as_often_as_they_say():
    """46 items of 1 to 7 pairs, as in MM-RLHF-RewardBench, answered alike within an item."""
    clusters = np.repeat(np.arange(46), 1 + np.arange(46) % 7)
    covered = clustered = 0
    for trial in range(200):
        random = np.random.default_rng(trial)
        own = random.beta(1.4, 0.6, 46)  # mean 0.7
        values = (random.random(len(clusters)) < own[clusters]).astype(float)
        alone = independent(values, 300, trial)
        found = bootstrap_mean(values, clusters, 300, trial)
        covered += alone.low <= 0.7 <= alone.high
        clustered += found.low <= 0.7 <= found.high
    assert clustered >= 0.86 * 200
    assert covered < 0.86 * 200, "drawing rows should fall short here: the test shows nothing"


def test_a_gain_is_paired_by_row():
    before = RANDOM.integers(0, 2, 400).astype(float)
    after = before.copy()
    after[:20] = 1
    gain = independent_gain(after, before, 2000, 0)
    assert gain.value == (after - before).mean()
    assert gain.margin < independent(after, 2000, 0).margin / 2
    assert independent_gain(before, before, 200, 0) == Estimate(0.0, 0.0, 0.0)


def test_what_cannot_be_resampled_is_refused():
    with pytest.raises(ValueError, match="at least one held-out row"):
        independent(np.array([]), 100, 0)
    with pytest.raises(ValueError, match="3 rows cannot be paired with 2"):
        independent_gain(np.ones(3), np.ones(2), 100, 0)


def test_many_rows_are_resampled_in_bounded_memory():
    values = np.arange(50_000) % 2 / 1.0
    assert independent(values, 100, 0).margin == pytest.approx(0.0044, abs=0.0015)


def test_it_prints_as_mean_and_half_width():
    assert str(Estimate(0.912, 0.896, 0.924)) == "0.912 ± 0.014"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=30))
def test_an_interval_stays_within_what_was_seen(values):
    estimate = independent(np.array(values), 100, 0)
    assert min(values) <= estimate.low <= estimate.high <= max(values)
