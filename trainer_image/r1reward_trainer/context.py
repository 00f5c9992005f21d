# SPDX-License-Identifier: Apache-2.0
"""What a stage gets besides its configuration."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from r1reward_trainer.outcome import Interrupted, StageError
from r1reward_trainer.progress import ProgressReporter
from r1reward_trainer.storage.s3 import Store


@dataclass(frozen=True)
class StageContext:
    """What a stage gets besides its configuration.

    Attributes:
        store: storage rooted at the namespace's root (`RunConfig.root`).
        open_store: a Store for another s3:// URI, with the same credentials.
        progress: reports to the operator; on other ranks than 0 it only logs.
        stop: set by SIGTERM; loops look at it between steps, save and raise Interrupted.
        scratch: an empty folder of this pod.
        token: the attempt's token for rollout and verifier; None for stages without services.
        rank, world_size: of torch.distributed, from the environment.
        abandon: ends the process at once with an error, from any thread: for when its main
            thread cannot be woken. None: the caller is no process of its own.
    """

    store: Store
    open_store: Callable[[str], Store]
    progress: ProgressReporter
    stop: threading.Event
    scratch: Path
    token: str | None = None
    rank: int = 0
    world_size: int = 1
    abandon: Callable[[StageError], None] | None = None

    def raise_if_stopped(self, step: int | None = None) -> None:
        """For stages whose work is saved as it is done.

        Raises:
            Interrupted: after SIGTERM.
        """
        if self.stop.is_set():
            raise Interrupted("stopped by SIGTERM; what was done is saved", step)
