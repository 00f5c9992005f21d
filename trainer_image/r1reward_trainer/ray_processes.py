# SPDX-License-Identifier: Apache-2.0
"""Work spread by Ray Data over processes of this machine.

Ray would wrap and retry an error of the work: StageErrors are returned as values, and raised here.
"""

import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import (
    ConfigurationError,
    InfrastructureError,
    ProgramError,
    StageError,
)

OBJECT_STORE_BYTES = 128 * 2**20
_ERRORS = {kind.__name__: kind for kind in (ConfigurationError, InfrastructureError, ProgramError)}

Item = Mapping[str, Any]
WorkOnOne = Callable[[Item], Any]
"""What a process does with an item; the result must be a JSON value. It is sent there by pickle."""


@contextmanager
def processes(count: int) -> Iterator[None]:
    """Has so many processes ready, for `work_on_each`. In the main thread.

    Credentials reach them by their environment.
    """
    import ray

    on_signals = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    ray.init(
        address="local",
        num_cpus=count,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )
    for number, handler in on_signals.items():
        signal.signal(number, handler)  # Ray's own would exit without a word
    try:
        yield
    finally:
        ray.shutdown()


def work_on_each(items: Sequence[Item], work: WorkOnOne, count: int) -> Iterator[Any]:
    """The results, as they are finished. A process that dies is started again with its item.

    Args:
        items: JSON values.
        work: done for each, in another process.
        count: of the processes.

    Raises:
        StageError: as the first item that failed raised it.
    """
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    outcomes = ray.data.from_items(list(items), override_num_blocks=len(items)).map(
        partial(_outcome, work),
        compute=ray.data.TaskPoolStrategy(size=count),
        num_cpus=1,
    )
    for row in outcomes.iter_rows():
        outcome = json.loads(row["outcome"])
        if "failure" in outcome:
            raise _ERRORS[outcome["failure"]](Reason(outcome["reason"]), outcome["message"])
        yield outcome["result"]


def _outcome(work: WorkOnOne, item: Item) -> dict[str, str]:
    try:
        outcome = {"result": work(item)}
    except StageError as error:
        outcome = {
            "failure": type(error).__name__,
            "reason": error.reason.value,
            "message": error.message,
        }
    return {"outcome": json.dumps(outcome)}
