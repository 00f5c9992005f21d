# SPDX-License-Identifier: Apache-2.0
"""annotate: chains of thought from a teacher, and how hard each row was for it.

Input: rows. Outputs: sft (accepted rows) and rl (hard rows: right at the second attempt
or later, or never; paper, section 3.2).
"""

import logging
import os

from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.annotation.choice import choose_rows, cut, rows_a_shard
from r1reward_trainer.annotation.results import Tally, read_results, write_outputs
from r1reward_trainer.annotation.spread import (
    Work,
    processes_for,
    spread,
    teacher_api_key,
    work_on,
)
from r1reward_trainer.context import StageContext
from r1reward_trainer.data.rows import open_rows
from r1reward_trainer.outcome import ConfigurationError, Outcome
from r1reward_trainer.storage.outputs import begin, fetch_input, publish, upload_output

logger = logging.getLogger(__name__)


def run(config: RunConfig, context: StageContext) -> Outcome:
    """Runs the stage.

    Raises:
        ConfigurationError: the teacher refuses the key, or was never right.
        InfrastructureError: teacher or storage does not answer.
        Interrupted: after SIGTERM; the answers so far are in the journal.
    """
    spec = config.spec.annotate
    if spec is None or config.key is None:
        raise ConfigurationError(Reason.INVALID_SPEC, "annotate needs spec.annotate and a key")
    store, scratch = context.store, context.scratch
    finished = begin(store, config)
    if finished is not None:
        return Outcome(finished, cache_hit=finished.created_by != config.job.uid)

    context.progress.update(message="fetching rows")
    rows = open_rows(fetch_input(store, config, "rows", scratch / "rows"))
    positions = choose_rows(rows, spec.max_rows, spec.seed)
    shards = cut(positions, rows_a_shard(len(positions), spec.processes))
    results = scratch / "results"
    results.mkdir()
    processes = spec.processes or processes_for(len(shards), len(os.sched_getaffinity(0)))
    work = Work(config, scratch / "rows", results, processes)
    logger.info("asking about %d of %d rows, %d processes", len(positions), len(rows), processes)

    tally = Tally()

    def note(finished: Tally) -> None:
        tally.add(finished)
        context.progress.update(step=tally.rows, metrics=tally.metrics())

    context.progress.update(step=0, total=len(positions), message=f"asking {spec.teacher.model}")
    if processes > 1:
        spread(work, shards, context.stop, note)
    else:
        work_on(work, shards, store, teacher_api_key(), context.stop, note)
    _refuse_useless(config, tally)

    context.progress.update(message="uploading chains")
    accepted, hard = write_outputs(
        rows, read_results(results, shards), spec.teacher.model, scratch / "sft", scratch / "rl"
    )
    outputs = {
        "sft": upload_output(store, config, "sft", scratch / "sft", accepted),
        "rl": upload_output(store, config, "rl", scratch / "rl", hard),
    }
    manifest, adopted = publish(store, config, outputs, tally.summary())
    return Outcome(manifest, cache_hit=adopted, step=tally.rows)


def _refuse_useless(config: RunConfig, tally: Tally) -> None:
    """Raises ConfigurationError when a later stage would have no rows."""
    spec = config.spec
    if spec.sft is not None and spec.sft.chains is None and tally.accepted == 0:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"the teacher was never right in {tally.rows} rows ({tally.refused} of {tally.asked} "
            "questions were refused), so sft would have no rows; check annotate.teacher.model, "
            "maxTokens (a cut answer has no verdict) and data.promptTemplate",
        )
    if spec.rl is not None and spec.rl.rows == "Hard" and tally.hard == 0:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"the teacher was right at once in all {tally.rows} rows, so rl would have no rows; "
            "set rl.rows: All",
        )
