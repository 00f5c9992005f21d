# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures two servers that give the same rewards; how fast is not tested here."""

import pytest

from tests.bench.verifier import Size, measure, rate, samples


def test_both_designs_give_every_sample_its_own_reward_and_all_figures_are_there():
    size = Size(repetitions=1, ours=96, blocking=4, overhead=64)
    result = measure(size, judge_seconds=0.02)  # raises for a wrong reward
    assert result["mostThatTheJudgeAllows"] == 3200.0
    assert set(result["ownMillisecondsPerSample"]) == {"ours", "oursWithoutJudge", "blocking"}
    for spread in (result["ratio"], *result["samplesPerSecond"].values()):
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]


def test_a_reward_of_another_sample_is_no_measurement():
    with pytest.raises(RuntimeError, match="wrong rewards"):
        rate(lambda batch: [1.0 for _ in batch], samples(4, "x"))
