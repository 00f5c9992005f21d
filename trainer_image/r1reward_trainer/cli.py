# SPDX-License-Identifier: Apache-2.0
"""`r1 <verb>`: the entry point of every container of the trainer image, and of people."""

import argparse
import faulthandler
import importlib
import importlib.util
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from r1reward_api.constants import ExitCode, Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_api.wire.termination import FailureClass, Termination
from r1reward_rollout.supervise import supervise
from r1reward_rollout.tail import Tail
from r1reward_trainer.context import StageContext
from r1reward_trainer.environment import Environment
from r1reward_trainer.logs.lines import OneLine, printable
from r1reward_trainer.logs.own import uploads_of
from r1reward_trainer.outcome import (
    ConfigurationError,
    Interrupted,
    Outcome,
    StageError,
    as_stage_error,
    brief_outputs,
    run_of,
)
from r1reward_trainer.progress import ProgressReporter
from r1reward_trainer.scoring import cli as scoring
from r1reward_trainer.storage.s3 import Store
from r1reward_trainer.validation import command as validation

logger = logging.getLogger("r1")

_SERVE_MANIFEST = "serve-manifest"
_OPERATOR = "r1reward_operator"

StageFunction = Callable[[RunConfig, StageContext], Outcome]


def main() -> None:
    """Runs one verb and exits with its code."""
    if sys.argv[1:2] == [_SERVE_MANIFEST]:
        _become_operators_verb()
    parser = argparse.ArgumentParser(prog="r1", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for stage in Stage:
        verbs.add_parser(stage.value, help=f"run the {stage.value} stage of $R1_RUN_CONFIG")
    verbs.add_parser("verifier", help="serve rewards")
    verbs.add_parser("fetch-model", help="download the run's starting model into $R1_MODELS")
    validation.add_parser(verbs)
    scoring.add_verbs(verbs)
    verbs.add_parser(_SERVE_MANIFEST, help="print what serves a finished job's model")
    arguments = parser.parse_args()

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(
        level=os.environ.get("R1_LOG_LEVEL", "INFO").upper(),
        handlers=[handler],
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if arguments.verb == "data":  # a person's own run, not a container's
        sys.exit(run_tool(lambda: validation.run(arguments)))
    environment = Environment.from_env()
    if arguments.verb in scoring.VERBS:
        sys.exit(run_tool(partial(scoring.run, environment, arguments)))
    supervise(environment.tail(arguments.verb), partial(_beside, environment, arguments.verb))
    faulthandler.enable()  # says where Python was when a library below it fails
    match arguments.verb:
        case "verifier":
            from r1reward_trainer.verifier.serve import serve

            code = run_service(environment, lambda: serve(environment))
        case "fetch-model":
            from r1reward_trainer.stages.fetch_model import fetch_model

            code = run_service(environment, lambda: fetch_model(environment))
        case stage:
            code = run_stage(Stage(stage), environment)
    sys.exit(code)


def _become_operators_verb() -> NoReturn:
    """serve-manifest is the operator's: another program, where it is installed."""
    if importlib.util.find_spec(_OPERATOR) is None:
        sys.exit(
            "r1 serve-manifest: the operator's package is not installed here; it is in the "
            "operator's image, as r1reward-operator serve-manifest"
        )
    os.execv(sys.executable, [sys.executable, "-m", _OPERATOR, *sys.argv[1:]])


def _beside(environment: Environment, verb: str, tail: Tail) -> AbstractContextManager[Any]:
    """What the parent of the program does with the program's last output."""
    if verb == "verifier":
        return nullcontext()  # has no credentials: it serves its log to the trainer
    return uploads_of(environment, verb, tail)


def run_tool(tool: Callable[[], int | None]) -> int:
    """Runs what a person asked for; its errors end in one readable line and an exit code."""
    end = _guarded(tool)
    return end.exit_code if isinstance(end, StageError) else end


def run_service(environment: Environment, service: Callable[[], None]) -> int:
    """Runs a service; its errors end in one readable line, the same in the termination message,
    and an exit code."""
    end = _guarded(service)
    if not isinstance(end, StageError):
        return end
    with suppress(ConfigurationError):  # without one, the log's last lines are the message
        config = environment.load_config()
        _write(environment.termination_log, _failure(config.stage, config, end))
    return end.exit_code


def _guarded(program: Callable[[], int | None]) -> int | StageError:
    """A program's exit code, or its error, told in one readable line."""
    try:
        return program() or ExitCode.SUCCESS
    except Exception as error:
        failure = as_stage_error(error)
        if failure.reason is Reason.PROGRAM_ERROR:
            logger.exception("the program failed")
        logger.error("%s: %s", failure.reason, failure.message)
        return failure


def run_stage(stage: Stage, environment: Environment) -> int:
    """Runs a stage, writes the termination message and returns the exit code.

    Every process of a stage comes through here; the first of each pod writes.
    """
    config: RunConfig | None = None
    try:
        config = environment.load_config()
        if config.stage != stage:
            raise StageError(
                Reason.INVALID_SPEC, f"asked to run {stage}, but configured for {config.stage}"
            )
        outcome = _run(config, environment)
        message = _success(config, outcome)
        code = ExitCode.SUCCESS
    except Interrupted as error:
        message = _failure(stage, config, error).model_copy(
            update={"outcome": "Interrupted", "step": error.step}
        )
        code = error.exit_code
    except StageError as error:
        logger.error("%s: %s", error.reason, error.message)
        message = _failure(stage, config, error)
        code = error.exit_code
    except Exception as error:
        logger.exception("the stage's program failed")
        message = _failure(stage, config, as_stage_error(error))
        code = ExitCode.PROGRAM
    if environment.local_rank == 0:
        _write(environment.termination_log, message)
    return code


def _run(config: RunConfig, environment: Environment) -> Outcome:
    function: StageFunction = importlib.import_module(
        f"r1reward_trainer.stages.{config.stage.value}"
    ).run
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    scratch = environment.scratch / f"rank-{environment.rank}"
    shutil.rmtree(scratch, ignore_errors=True)  # left by a container that was restarted
    scratch.mkdir(parents=True)
    reporter = ProgressReporter(
        config.stage.value,
        config.attempt,
        config.progress_url if environment.rank == 0 else None,
        environment.progress_token_file,
    )
    context = StageContext(
        store=Store.from_env(config.root, reporter.waiting_for),
        open_store=lambda uri: Store.from_env(uri, reporter.waiting_for),
        progress=reporter,
        stop=stop,
        scratch=scratch,
        token=environment.load_token(),
        rank=environment.rank,
        world_size=environment.world_size,
        abandon=partial(_abandon, config, environment),
    )
    try:
        return function(config, context)
    finally:
        reporter.close()


def _abandon(config: RunConfig, environment: Environment, error: StageError) -> NoReturn:
    """Ends this process from a thread: its main one may wait in a library for ever."""
    logger.error("%s: %s", error.reason, error.message)
    if environment.local_rank == 0:
        _write(environment.termination_log, _failure(config.stage, config, error))
    os._exit(error.exit_code)


def _success(config: RunConfig, outcome: Outcome) -> Termination:
    return Termination(
        stage=config.stage,
        attempt=config.attempt,
        outcome="Succeeded",
        key=outcome.manifest.key,
        cache_hit=outcome.cache_hit,
        run=run_of(outcome.manifest),
        outputs=brief_outputs(outcome.manifest),
        summary=outcome.manifest.summary,
        code=outcome.code,
        cached=outcome.cached,
        step=outcome.step,
    )


def _failure(stage: Stage, config: RunConfig | None, error: StageError) -> Termination:
    return Termination(
        stage=stage,
        attempt=config.attempt if config else 1,
        outcome="Failed",
        failure_class=FailureClass(error.failure_class),
        reason=error.reason,
        message="\n".join(map(printable, error.message.splitlines()))[:1400],
    )


def _write(path: Path, message: Termination) -> None:
    try:
        path.write_text(message.encode())
    except OSError as error:
        logger.warning("termination message was not written: %s", error)
