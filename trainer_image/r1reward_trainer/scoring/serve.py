# SPDX-License-Identifier: Apache-2.0
"""`r1 scoring-front`: serves scores by the vLLM server beside it."""

import argparse
import os
import signal
from functools import partial
from pathlib import Path

import uvicorn

from r1reward_api.constants import SERVER_TOKEN_PATH
from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.environment import Environment
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.render import Renderer
from r1reward_trainer.rollout.client import RolloutClient, Timeouts
from r1reward_trainer.scoring.app import create_app
from r1reward_trainer.scoring.front import Front
from r1reward_trainer.scoring.judging import Judge, Rules
from r1reward_trainer.scoring.places import Limits
from r1reward_trainer.scoring.server import ModelServer, verify_folder
from r1reward_trainer.stages.fetch_model import FOLDER, starting_model

SHORTEST_TOKEN = 16


def serve(environment: Environment, given: argparse.Namespace) -> None:
    """Serves until SIGTERM; requests in flight are finished within the grace period.

    Raises:
        ConfigurationError: without tokens, or where the model's folder is not the job's.
    """
    config = environment.load_config()
    token = _token(environment.token_file)
    folder = environment.models / FOLDER
    digest = config.inputs[starting_model(config)].digest
    client = RolloutClient(
        given.server,
        given.server_port,
        token=_token(environment.server_token_file or Path(SERVER_TOKEN_PATH)),
        job_uid=config.job.uid,
        timeouts=Timeouts(request=given.deadline_seconds),
    )
    server = ModelServer(client, str(folder))
    front = Front(
        Judge(
            Renderer.from_folder(folder, config.spec.data),
            server.ask,
            digest,
            rules_of(config, given.temperature),
        ),
        server,
        partial(verify_folder, folder, digest),
        Limits(given.in_flight, given.body_bytes, given.deadline_seconds),
    )
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    uvicorn.run(
        create_app(front, token, on_failure=fail),
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=max(1, config.grace_period_seconds - 5),
    )
    if failures:
        raise failures[0]


def rules_of(config: RunConfig, temperature: float) -> Rules:
    """How the job's model is asked: as its evaluation asked it.

    Raises:
        ConfigurationError: for a temperature that is none.
    """
    try:
        return Rules(
            max_new_tokens=config.spec.evaluate.max_new_tokens,
            max_model_length=config.serving.max_model_length,
            max_images=config.serving.images_per_prompt,
            temperature=temperature,
        )
    except ValueError as error:
        raise ConfigurationError(Reason.INVALID_SPEC, f"--temperature: {error}") from error


def _token(path: Path) -> str:
    """The token in a file.

    Raises:
        ConfigurationError: when there is none, or one that can be guessed.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            Reason.INVALID_SPEC, f"the token file {path} cannot be read: {error}"
        ) from error
    if len(token) < SHORTEST_TOKEN:
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            f"the token in {path} has fewer than {SHORTEST_TOKEN} characters: make one with "
            "`openssl rand -hex 32`",
        )
    return token
