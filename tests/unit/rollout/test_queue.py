# SPDX-License-Identifier: Apache-2.0
"""How many prompts a server may have at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1reward_trainer.rollout.queue import Load, next_limit, read_load

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="/models/{odd}"} 7.0
vllm:num_requests_running{engine="1",model_name="/models/{odd}"} 8.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="/models/{odd}"} 0.0
vllm:num_requests_waiting{engine="1",model_name="/models/{odd}"} 3.0
vllm:num_requests_waiting_by_reason{engine="1",reason="capacity"} 3.0
"""


def test_the_load_is_that_of_all_engines() -> None:
    assert read_load(METRICS) == Load(running=15, waiting=3)
    assert read_load("vllm:num_requests_running 2\nvllm:num_requests_waiting 1e2\n") == Load(2, 100)


@pytest.mark.parametrize(
    "metrics",
    [
        "",
        '{"error": "no such path"}',
        "vllm:num_requests_running 1.0\n",
        "vllm:num_requests_running NaN\nvllm:num_requests_waiting 1\n",
        "vllm:num_requests_running +Inf\nvllm:num_requests_waiting 1\n",
        "vllm:num_requests_running many\nvllm:num_requests_waiting 1\n",
    ],
)
def test_what_says_nothing_of_the_load_is_no_load(metrics: str) -> None:
    assert read_load(metrics) is None


@pytest.mark.parametrize(
    ("in_flight", "load", "limit"),
    [
        (64, Load(64, 0), 128),
        (64, Load(33, 0), 128),
        (64, Load(64, 1), 64),
        (64, Load(32, 32), 64),
        (64, Load(31, 33), 48),
        (63, Load(63, 0), 64),  # the prompts have run out
        (64, Load(8, 0), 64),  # what holds them up is not the engine
        (64, Load(0, 64), 64),  # paused
    ],
)
def test_the_limit_grows_while_nothing_waits_and_shrinks_when_more_waits_than_runs(
    in_flight: int, load: Load, limit: int
) -> None:
    assert next_limit(64, in_flight, load, 256) == limit


@given(
    first=st.integers(1, 256),
    most=st.integers(1, 256),
    capacity=st.integers(1, 2000),
    answers=st.integers(1, 16),
)
def test_it_settles_where_the_engine_is_full_and_no_more_waits_than_runs(
    first: int, most: int, capacity: int, answers: int
) -> None:
    """A server that runs so many sequences, and prompts without end of so many answers each."""

    def load(limit: int) -> Load:
        running = min(limit * answers, capacity)
        return Load(running, limit * answers - running)

    limit = min(first, most)
    for _ in range(40):
        limit = next_limit(limit, limit, load(limit), most)
        assert 1 <= limit <= most
    settled = {limit := next_limit(limit, limit, load(limit), most) for _ in range(12)}
    for limit in settled:
        full = load(limit).running == capacity or limit == most
        short = load(limit).waiting <= load(limit).running or limit == 1
        # where one prompt is more than a quarter of the engine, it may swing by one prompt
        assert (full and short) or 3 * answers > capacity
