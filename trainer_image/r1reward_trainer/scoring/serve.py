# SPDX-License-Identifier: Apache-2.0
"""`r1 scoring-front`: serves scores by the vLLM server beside it."""

import argparse
from functools import partial
from pathlib import Path

import uvicorn

from r1reward_api.constants import SERVER_TOKEN_PATH
from r1reward_api.reasons import Reason
from r1reward_trainer.environment import Environment
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.scoring.app import create_app
from r1reward_trainer.scoring.front import Front
from r1reward_trainer.scoring.model import judge_of
from r1reward_trainer.scoring.places import Limits
from r1reward_trainer.scoring.server import verify_folder
from r1reward_trainer.stages.fetch_model import FOLDER
from r1reward_trainer.verifier.listening import listening

SHORTEST_TOKEN = 16


def serve(environment: Environment, given: argparse.Namespace) -> None:
    """Serves until SIGTERM; requests in flight are finished within the grace period.

    Raises:
        ConfigurationError: without tokens, or where the model's folder is not the job's.
    """
    config = environment.load_config()
    token = _token(environment.token_file)
    folder = environment.models / FOLDER
    judge, server, digest = judge_of(
        config,
        folder,
        given.server,
        given.server_port,
        _token(environment.server_token_file or Path(SERVER_TOKEN_PATH)),
        given.deadline_seconds,
        given.temperature,
        served_folder=folder,
    )
    front = Front(
        judge,
        server,
        partial(verify_folder, folder, digest),
        Limits(given.in_flight, given.body_bytes, given.bodies_bytes, given.deadline_seconds),
    )
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        http.should_exit = True

    app = create_app(front, token, on_failure=fail)
    options = listening(given.host, given.port, config.grace_period_seconds)
    http = uvicorn.Server(uvicorn.Config(app, **options))
    http.run()
    if failures:
        raise failures[0]


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
