# SPDX-License-Identifier: Apache-2.0
"""The models of `evaluate.baselines`: found and staged as the base model is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import EvaluateSpec, ModelSpec
from r1reward_trainer.data.base_model import FoundModel, find_model
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.s3 import Store


def find_baselines(spec: EvaluateSpec, open_store: Callable[[str], Store]) -> dict[str, FoundModel]:
    """Looks them up without downloading them, by name.

    Raises:
        ConfigurationError: InvalidModel, naming the baseline.
        InfrastructureError: when the hub does not answer.
    """
    found: dict[str, FoundModel] = {}
    for one in spec.baselines:
        with naming_baseline(one.name):
            found[one.name] = find_model(ModelSpec(uri=one.uri, revision=one.revision), open_store)
    return found


@contextmanager
def naming_baseline(name: str) -> Iterator[None]:
    """What is wrong with a model is said of this baseline instead of the base model."""
    try:
        yield
    except ConfigurationError as error:
        told = error.message.replace("spec.model.", f"evaluate.baselines {name}: ")
        raise ConfigurationError(error.reason, told) from error


def check_same_weights(folder: Path, base: Path, uri: str) -> None:
    """The servers that hold the base model must be able to load the baseline's weights.

    Raises:
        ConfigurationError: InvalidModel, when names or shapes differ, naming one that does.
    """
    own, expected = _shapes(folder), _shapes(base)
    if own == expected:
        return
    name = min(n for n in own.keys() | expected.keys() if own.get(n) != expected.get(n))
    raise ConfigurationError(
        Reason.INVALID_MODEL,
        f"spec.model.uri {uri} has other weights than the base model: {name} is "
        f"{own.get(name) or 'missing'}, in the base model {expected.get(name) or 'missing'}; "
        "give a model of the base model's architecture and size",
    )


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                shapes[name] = tuple(opened.get_slice(name).get_shape())
    return shapes
