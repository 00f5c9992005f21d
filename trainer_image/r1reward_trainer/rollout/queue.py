# SPDX-License-Identifier: Apache-2.0
"""How many prompts a server may have at once, by what it says of its queue. Pure functions."""

import re
from dataclasses import dataclass

_GAUGE = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{.*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """What a server does, in sequences: a prompt that asks for n answers is n of them."""

    running: int
    waiting: int


def read_load(metrics: str) -> Load | None:
    """The load in a server's /metrics, over all of its engines; None when it does not say."""
    found: dict[str, float] = {}
    for name, value in _GAUGE.findall(metrics):
        try:
            found[name] = found.get(name, 0.0) + float(value)
        except ValueError:
            return None
    try:
        return Load(int(found["running"]), int(found["waiting"]))
    except (KeyError, ValueError, OverflowError):  # missing, NaN or Inf
        return None


def next_limit(limit: int, in_flight: int, load: Load, most: int) -> int:
    """How many prompts the server may have from now on, from 1 to ``most``.

    It may have twice as many when nothing waits in it, all that are allowed are under way and
    most of them in its engine: more would run at once. It may have a quarter less when more
    waits than runs: that much of a queue keeps the engine full between two looks, and what is
    beyond waits better here, where it can go to another server and no deadline runs. Between
    the two the limit stays.
    """
    if load.running and load.waiting > load.running:
        return max(1, min(limit, most) * 3 // 4)
    if not load.waiting and in_flight >= limit and 2 * load.running > limit:
        return min(most, 2 * limit)
    return limit
