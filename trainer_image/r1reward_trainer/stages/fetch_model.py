# SPDX-License-Identifier: Apache-2.0
"""fetch-model: init container of the rollout and judge servers.

Puts the model that a server starts from into `$R1_MODELS/base`: the attempt's own starting
model with every digest verified, or the one that R1_FETCH_URI names (the judge's). For a model
that is served to others it also makes the token between the pod's containers.
"""

import logging
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from r1reward_api.constants import Role, Stage
from r1reward_api.reasons import Reason
from r1reward_api.resource.job import ModelSpec
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.data.base_model import check_weights, find_model
from r1reward_trainer.environment import Environment
from r1reward_trainer.logs.own import leave_log_url
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.outputs import fetch_input
from r1reward_trainer.storage.s3 import Store

logger = logging.getLogger(__name__)

FOLDER = "base"
"""Below $R1_MODELS; what the server is started with."""

_STARTING_MODELS = {Stage.RL: ("model",), Stage.EVALUATE: ("base", "sft", "rl")}
"""Input that a stage's servers start from: the first there is."""


def fetch_model(
    environment: Environment, open_store: Callable[[str], Store] = Store.from_env
) -> None:
    """Downloads the model; the folder appears whole or not at all, readable by every user.

    Raises:
        ConfigurationError: the model is not there, is damaged, or differs from its manifest.
        InfrastructureError: storage or the hub does not answer.
    """
    target = environment.models / FOLDER
    part = environment.models / f".{FOLDER}.part"
    for left in (target, part):  # of a container that was restarted
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    config = environment.load_config()
    store = open_store(config.root)
    if environment.fetch_uri is not None:
        _fetch_judge(environment.fetch_uri, open_store, part)
        leave_log_url(environment, store, config, Role.JUDGE)
    else:
        name = starting_model(config)
        logger.info("fetching %s of %s", name, config.inputs[name].stage)
        fetch_input(store, config, name, part)
        if environment.server_token_file is None:
            leave_log_url(environment, store, config, Role.ROLLOUT)
        else:
            make_token(environment.server_token_file)
    make_readable(part)
    part.rename(target)


def _fetch_judge(uri: str, open_store: Callable[[str], Store], folder: Path) -> None:
    """No stage has checked these weights and no manifest tells their digests: vLLM would fail
    on damaged ones for ever."""
    logger.info("fetching %s", uri)
    try:
        find_model(ModelSpec(uri=uri), open_store).stage(folder)
        check_weights(folder, uri)
    except ConfigurationError as error:
        message = error.message.replace("spec.model.uri", "spec.rl.verifier.judge.model")
        raise ConfigurationError(error.reason, message) from error


def starting_model(config: RunConfig) -> str:
    """Name of the input that the stage's servers start from.

    Raises:
        ConfigurationError: when the stage has no servers or no such input.
    """
    for name in _STARTING_MODELS.get(config.stage, ()):
        if name in config.inputs:
            return name
    raise ConfigurationError(
        Reason.INVALID_SPEC,
        f"stage {config.stage} with inputs {sorted(config.inputs)} has no model for its servers",
    )


def make_token(path: Path) -> None:
    """A token that nobody but this pod's containers can read; another one every time."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(secrets.token_urlsafe(32), encoding="ascii")


def make_readable(folder: Path) -> None:
    """Files 0644 and folders 0755: the server runs as another user than the one who saved."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
