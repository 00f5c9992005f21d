# SPDX-License-Identifier: Apache-2.0
"""The judge of a served job, from its run configuration and its model's folder."""

from pathlib import Path

from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.render import Renderer
from r1reward_trainer.rollout.client import RolloutClient, Timeouts
from r1reward_trainer.scoring.judging import Judge, Rules
from r1reward_trainer.scoring.server import ModelServer
from r1reward_trainer.stages.fetch_model import starting_model


def judge_of(
    config: RunConfig,
    folder: Path,
    address: str,
    port: int,
    token: str,
    deadline_seconds: float,
    temperature: float,
    served_folder: Path | None = None,
) -> tuple[Judge, ModelServer, str]:
    """The judge, its server, and the digest of its weights.

    Args:
        config: with the model as its input.
        folder: of the model, here: its processor is read.
        address, port, token: of the vLLM server.
        deadline_seconds: of a prompt.
        temperature: of the calibration.
        served_folder: of the model, there; None: not compared.

    Raises:
        ConfigurationError: no processor, or a temperature that is none.
    """
    digest = config.inputs[starting_model(config)].digest
    client = RolloutClient(
        address,
        port,
        token=token,
        job_uid=config.job.uid,
        timeouts=Timeouts(request=deadline_seconds),
    )
    server = ModelServer(client, None if served_folder is None else str(served_folder))
    renderer = Renderer.from_folder(folder, config.spec.data)
    return Judge(renderer, server.ask, digest, rules_of(config, temperature)), server, digest


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
