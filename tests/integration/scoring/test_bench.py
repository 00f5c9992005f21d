# SPDX-License-Identifier: Apache-2.0
"""The benchmark's two ways are the same work; no times are looked at here."""

import asyncio

import pytest

from r1reward_trainer.render import chain
from tests.bench.scoring import Round, measure, median_interval, summarise
from tests.integration.scoring.conftest import REASONING, Pod

pytestmark = pytest.mark.timeout(600)


def test_front_and_bare_vllm_write_the_same_responses(pod: Pod, front: str):
    rounds = asyncio.run(measure(pod, front, rounds=2, warm_up=1))
    assert len(rounds) == 2
    expected = 2 * (len(chain(1, REASONING)) + 1)  # the tokenizer has a token a byte
    for one in rounds:
        assert one.front_tokens == one.bare_tokens == expected
        assert min(one.front, one.bare) > 0


def test_added_latency_is_taken_within_rounds_and_at_the_medians():
    rounds = [Round(1.1, 1.0, 10, 10), Round(2.4, 2.0, 10, 10), Round(3.0, 3.0, 12, 12)]
    found = summarise(rounds)
    assert found["added"]["p50"] == found["addedMedian"] == 0.1
    assert found["added"]["p95"] == 0.19
    assert found["addedAtP95"] == round(2.94 / 2.9 - 1, 4)
    assert (found["addedAtP50"], found["met"]) == (0.2, False)
    assert found["tokensPerResponse"] == 5
    assert median_interval(list(range(101))) == [40, 60]
