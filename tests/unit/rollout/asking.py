# SPDX-License-Identifier: Apache-2.0
"""What tests ask of a fleet, and how they wait."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from r1reward_trainer.rollout import (
    GenerateRequest,
    GenerateResult,
    RolloutFleet,
    Sampling,
    WeightFile,
    WeightVersion,
)

T = TypeVar("T")

UPDATE = [
    "/pause",
    "/reset_encoder_cache",
    "/reset_prefix_cache",
    "/start_weight_update",
    "/update_weights",
    "/finish_weight_update",
    "/resume",
]


def weights(version: str) -> WeightVersion:
    return WeightVersion(version, (WeightFile(f"weights/{version}", "a" * 64, 10),))


def prompts(count: int) -> list[GenerateRequest]:
    return [
        GenerateRequest(id=f"p{index}", token_ids=(1, index), sampling=Sampling(max_tokens=2))
        for index in range(count)
    ]


def in_background(work: Callable[[], T]) -> Future[T]:
    """The work in a thread that the test does not wait for unless it asks."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def answered(results: Sequence[GenerateResult]) -> tuple[list[str], set[str]]:
    return [result.id for result in results], {result.weight_version for result in results}


def ids(count: int) -> list[str]:
    return [f"p{index}" for index in range(count)]


def ready(fleet: RolloutFleet) -> dict[str, str | None]:
    return {status.address: status.version for status in fleet.status() if status.healthy}


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition that other threads bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
