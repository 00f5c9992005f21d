# SPDX-License-Identifier: Apache-2.0
"""The models that are evaluated: their weights in storage, their processors here."""

from dataclasses import dataclass
from pathlib import Path

from r1reward_api.reasons import Reason
from r1reward_api.stages import baseline_output
from r1reward_api.wire.runconfig import RunConfig, stage_prefix
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.render import Renderer
from r1reward_trainer.rollout import WeightFile, WeightVersion, stored_weights
from r1reward_trainer.storage.outputs import download_files, input_output
from r1reward_trainer.storage.s3 import Store

NAMES = ("base", "sft", "rl")
"""Inputs that are the job's own models, in the order in which they were trained."""


@dataclass(frozen=True)
class Candidate:
    """One model to evaluate.

    Attributes:
        name: one of NAMES, or as `evaluate.baselines` names it.
        weights: as the rollout servers load them from storage.
        renderer: of the model's own processor.
    """

    name: str
    weights: WeightVersion
    renderer: Renderer


def candidates(config: RunConfig, store: Store, scratch: Path) -> list[Candidate]:
    """The models among the stage's inputs, baselines first and the last one trained last;
    everything but their weights is downloaded.

    Raises:
        ConfigurationError: there is none, or one is missing or corrupt.
    """
    trained = [name for name in NAMES if name in config.inputs]
    if not trained:
        raise ConfigurationError(
            Reason.INVALID_SPEC, f"no model to evaluate among inputs {sorted(config.inputs)}"
        )
    baselines = {one.name: baseline_output(one.name) for one in config.spec.evaluate.baselines}
    return [
        _candidate(config, store, name, source, scratch / source)
        for name, source in {**baselines, **dict(zip(trained, trained, strict=True))}.items()
    ]


def _candidate(config: RunConfig, store: Store, name: str, source: str, folder: Path) -> Candidate:
    output = input_output(store, config, source)
    ref = config.inputs[source]
    prefix = f"{stage_prefix(ref.stage, ref.key)}/{output.path}"
    weights = [f for f in output.files if f.path.endswith(".safetensors")]
    if not weights:
        raise ConfigurationError(
            Reason.INVALID_MODEL, f"{store.uri(prefix)} holds no .safetensors weights"
        )
    download_files(store, prefix, [f for f in output.files if f not in weights], folder)
    return Candidate(
        name,
        stored_weights(
            name, [WeightFile(f"{prefix}/{f.path}", f.sha256, f.bytes) for f in weights]
        ),
        Renderer.from_folder(folder, config.spec.data),
    )
