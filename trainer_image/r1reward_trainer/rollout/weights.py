# SPDX-License-Identifier: Apache-2.0
"""Writing a step's weights where the rollout servers fetch them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from r1reward_trainer.rollout.types import WeightFile, WeightVersion


class WeightStorage(Protocol):
    """The object store, as far as weights need it."""

    def put_file(self, path: Path, key: str) -> None:
        """Upload one file, replacing what is at the key."""
        ...

    def presign_get(self, key: str, expires: int) -> str:
        """A URL that reads the object without credentials for ``expires`` seconds."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        ...


def stored_weights(label: str, files: Iterable[WeightFile]) -> WeightVersion:
    """Weights that already lie in the store as safetensors (base model, a stage's output).

    The version is ``<label>-<digest12>`` over the files' checksums.
    """
    raise NotImplementedError


class WeightPublisher:
    """Publishes the weights of one attempt's steps and prunes the old ones."""

    def __init__(
        self, storage: WeightStorage, *, prefix: str, attempt: int, work_dir: Path, keep: int = 2
    ) -> None: ...

    def publish(self, step: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> WeightVersion:
        """Write the tensors (checkpoint names, whole, any device) and upload them."""
        raise NotImplementedError

    def publish_folder(self, step: int, folder: Path) -> WeightVersion:
        """Upload the ``*.safetensors`` of a folder that is already written."""
        raise NotImplementedError
