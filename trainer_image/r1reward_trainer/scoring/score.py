# SPDX-License-Identifier: Apache-2.0
"""`r1 score`: scores a file's pairs or groups."""

import argparse
import json
import signal
import sys
from typing import NoReturn

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, Interrupted
from r1reward_trainer.scoring.batch import Options
from r1reward_trainer.scoring.run import score_files
from r1reward_trainer.scoring.target import Target


def score(given: argparse.Namespace) -> None:
    """Scores, and prints the summary.

    Raises:
        StageError: as `score_files`; Interrupted by a signal.
    """
    if given.vllm and not (given.run_config and given.model):
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            "--vllm needs --run-config (run.json of the ConfigMap that serve-manifest prints) and "
            "--model (folder of the job's weights, whose processor is read)",
        )
    others = ("run_config", "model", "temperature")
    if given.front and (useless := [n for n in others if getattr(given, n) is not None]):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            f"{names}: of --vllm alone; a front has its own (its --temperature is set with "
            "serve-manifest): leave it out",
        )
    target = Target(
        url=given.vllm or given.front,
        token_file=given.token_file,
        run_config=given.run_config if given.vllm else None,
        model=given.model if given.vllm else None,
        temperature=1.0 if given.temperature is None else given.temperature,
        deadline_seconds=given.deadline_seconds,
    )
    options = Options(
        target=target,
        output=given.output,
        concurrency=given.concurrency,
        processes=given.processes,
        max_bad_rows=given.max_bad_rows,
        patience_seconds=given.patience_seconds,
        full_seconds=given.full_seconds,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        summary = score_files(given.input, options)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; what was scored is kept, run the command again to go on"
        ) from None
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt  # an event loop swallows any other exception in a callback of its own
