# SPDX-License-Identifier: Apache-2.0
"""The vLLM server that judges: one, beside the front or elsewhere, with weights that are the
job's."""

import hashlib
import math
import time
from pathlib import Path

from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import FileEntry, tree_digest
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.rollout import GenerateRequest, GenerateResult, StaleWeights
from r1reward_trainer.rollout.client import RolloutClient

STARTED_WITH = "default"
"""How vLLM calls the weights of the folder that it was started with, until others are loaded."""


def verify_folder(folder: Path, digest: str) -> None:
    """Compares all files of a folder with the digest of a stage's output.

    Raises:
        ConfigurationError: ArtifactCorrupt, when they are others.
    """
    files: list[FileEntry] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        relative = path.relative_to(folder).as_posix()
        files.append(FileEntry(path=relative, bytes=path.stat().st_size, sha256=sha256))
    found = tree_digest(files)
    if found != digest:
        raise ConfigurationError(
            Reason.ARTIFACT_CORRUPT,
            f"{folder} has digest {found}, but the job's weights have {digest}; delete the pod to "
            "fetch them again",
        )


class ModelServer:
    """A server that was started with a folder.

    Args:
        client: of the server.
        folder: path of the model as the server sees it; None: not compared.
    """

    def __init__(self, client: RolloutClient, folder: str | None) -> None:
        self._client = client
        self._folder = folder
        self._answered = -math.inf

    @property
    def silence(self) -> float:
        """Seconds since it last answered a prompt; infinite before the first."""
        return time.monotonic() - self._answered

    async def ask(self, request: GenerateRequest) -> GenerateResult:
        """The answer, all of it by the weights that the server was started with.

        Raises:
            RolloutError: there is none.
        """
        result = await self._client.generate(request, STARTED_WITH)
        self._answered = time.monotonic()
        return result

    async def check(self) -> None:
        """Makes sure that it is the server expected, that its engine lives, and that it has the
        folder's weights.

        Raises:
            RolloutError: which of these is not so.
        """
        await self._client.prove()
        await self._client.check_health()
        folder = await self._client.model_folder()
        if self._folder is not None and folder != self._folder:
            raise StaleWeights(f"the server was started with {folder}, not {self._folder}")

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()
