# SPDX-License-Identifier: Apache-2.0
"""Files scored in several processes by Ray Data.

Asking is waiting, so one process does for long; many files with many images are spread, since
decoding and encoding them take their share of a CPU. Each process writes its files' parts itself:
nothing but counts goes through Ray.
"""

import json
import logging
import signal
from collections.abc import Sequence
from functools import partial

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import (
    ConfigurationError,
    InfrastructureError,
    ProgramError,
    StageError,
)
from r1reward_trainer.scoring.batch import Options, score_file
from r1reward_trainer.scoring.files import InputFile

OBJECT_STORE_BYTES = 128 * 2**20
_ERRORS = {kind.__name__: kind for kind in (ConfigurationError, InfrastructureError, ProgramError)}

logger = logging.getLogger(__name__)


def spread(files: Sequence[InputFile], options: Options, weights: str) -> None:
    """Scores files in `options.processes` processes; called in the main thread.

    Credentials reach the processes by their environment.

    Raises:
        StageError: as the first process that failed raised it.
    """
    import ray
    import ray.data

    on_signals = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    ray.init(
        address="local",
        num_cpus=options.processes,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )
    for number, handler in on_signals.items():
        signal.signal(number, handler)  # Ray's own would exit without a word
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        items = [{"uri": file.uri, "version": file.version} for file in files]
        outcomes = ray.data.from_items(items, override_num_blocks=len(files)).map(
            partial(_score_one, options, weights),
            compute=ray.data.TaskPoolStrategy(size=options.processes),
            num_cpus=1,
        )
        for row in outcomes.iter_rows():
            outcome = json.loads(row["outcome"])
            if "failure" in outcome:
                raise _ERRORS[outcome["failure"]](Reason(outcome["reason"]), outcome["message"])
            logger.info("%s: %d rows scored", outcome["uri"], outcome["rows"])
    finally:
        ray.shutdown()


def _score_one(options: Options, weights: str, item: dict[str, str]) -> dict[str, str]:
    """One file in a process of Ray's, which would wrap and retry errors: they are returned."""
    file = InputFile(item["uri"], item["version"])
    try:
        outcome = {"uri": file.uri, "rows": score_file(file, options, weights)}
    except StageError as error:
        outcome = {
            "failure": type(error).__name__,
            "reason": error.reason.value,
            "message": error.message,
        }
    return {"outcome": json.dumps(outcome)}
