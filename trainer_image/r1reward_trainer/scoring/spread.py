# SPDX-License-Identifier: Apache-2.0
"""Files scored in several processes.

Asking is waiting, so one process does for long; many files with many images are spread, since
decoding and encoding them take their share of a CPU. Each process writes its files' parts itself:
nothing but counts goes between them.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from r1reward_trainer.ray_processes import Item, processes, work_on_each
from r1reward_trainer.scoring.batch import Options, score_file
from r1reward_trainer.scoring.files import InputFile

logger = logging.getLogger(__name__)


def spread(files: Sequence[InputFile], options: Options, weights: str) -> None:
    """Scores files in `options.processes` processes; called in the main thread.

    Raises:
        StageError: as the first process that failed raised it.
    """
    items = [{"uri": file.uri, "version": file.version} for file in files]
    work = partial(_score_one, options, weights)
    with processes(options.processes):
        for scored in work_on_each(items, work, options.processes):
            logger.info("%s: %d rows scored", scored["uri"], scored["rows"])


def _score_one(options: Options, weights: str, item: Item) -> dict[str, Any]:
    file = InputFile(item["uri"], item["version"])
    return {"uri": file.uri, "rows": score_file(file, options, weights)}
