# SPDX-License-Identifier: Apache-2.0
"""One vLLM server with a taught model, and `r1 scoring-front` beside it, as in one pod."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from r1reward_api.wire.manifest import FileEntry, tree_digest
from r1reward_trainer.render import chain
from tests.cluster.layout import REPOSITORY
from tests.cluster.ports import free
from tests.cluster.processes import Daemon, Supervisor, wait_until
from tests.integration.rollout.reference import MAX_PIXELS, MIN_PIXELS
from tests.integration.rollout.servers import JOB_UID, TOKEN, RolloutServer, rollout_server
from tests.integration.scoring.taught_model import TEMPLATE, build_taught_model
from tests.unit.scoring.served import served_config

CLIENT_TOKEN = "token-of-the-clients"
AUTHORISED = {"Authorization": f"Bearer {CLIENT_TOKEN}"}
REASONING = "<b>ok</b><img src=x onerror=alert(1)>"
"""What the model was taught to think: markup that a page must show and never run."""


def digest_of(folder: Path) -> str:
    """As the manifest of the stage that wrote the folder has it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return tree_digest(
        [
            FileEntry(
                path=path.relative_to(folder).as_posix(),
                bytes=path.stat().st_size,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in files
        ]
    )


@dataclass(frozen=True)
class Pod:
    """The pod's volume and its vLLM server; starts fronts."""

    folder: Path
    server: RolloutServer
    digest: str

    def config(self, digest: str) -> dict[str, Any]:
        """The run configuration that serve-manifest makes."""
        return served_config(
            JOB_UID,
            digest,
            TEMPLATE,
            (MIN_PIXELS, MAX_PIXELS),
            evaluate={"maxNewTokens": 100},
            serving={"maxModelLength": 512, "dtype": "float32", "imagesPerPrompt": 2},
        )

    def environment(self, digest: str) -> Mapping[str, str]:
        """Of the front's container."""
        config = self.folder / f"run-{digest[-8:]}.json"
        config.write_text(json.dumps(self.config(digest)))
        for name, token in (("clients", CLIENT_TOKEN), ("server-token", TOKEN)):
            (self.folder / name).write_text(token)
        return {
            "PYTHONPATH": f"{REPOSITORY}/operator:{REPOSITORY}/trainer_image",
            "PATH": os.environ["PATH"],
            "R1_RUN_CONFIG": str(config),
            "R1_MODELS": str(self.folder / "models"),
            "R1_TOKEN_FILE": str(self.folder / "clients"),
            "R1_SERVER_TOKEN_FILE": str(self.folder / "server-token"),
            "OMP_NUM_THREADS": "1",
        }

    def command(self, port: int, *flags: str) -> tuple[str, ...]:
        """Of the front's container."""
        return (
            sys.executable, "-m", "r1reward_trainer", "scoring-front", "--host", "127.0.0.1",
            "--port", str(port), "--server-port", str(self.server.port), *flags,
        )  # fmt: skip

    @contextmanager
    def front(self, *flags: str) -> Iterator[str]:
        """The URL of a front that is ready."""
        (port,) = free(1)
        url = f"http://127.0.0.1:{port}"
        folder = self.folder / f"front-{port}"
        folder.mkdir()
        daemon = Daemon("front", self.command(port, *flags), self.environment(self.digest))

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/ready", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        with Supervisor(folder, tied=True) as supervisor:
            supervisor.start(daemon)
            wait_until("the front is ready", ready, 200, supervisor.check)
            yield url


@contextmanager
def served_pod(folder: Path, *vllm_flags: str) -> Iterator[Pod]:
    """A pod whose model answers with REASONING.

    Args:
        folder: empty.
        vllm_flags: further arguments of the server.
    """
    (folder / "models").mkdir()
    model = build_taught_model(folder / "models" / "base", chain(1, REASONING))
    (folder / "vllm").mkdir()
    with rollout_server(folder / "vllm", model, vllm_flags) as server:
        yield Pod(folder, server, digest_of(model))


@pytest.fixture(scope="package")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    torch.set_num_threads(1)
    with served_pod(tmp_path_factory.mktemp("pod")) as pod:
        yield pod


@pytest.fixture(scope="package")
def front(pod: Pod) -> Iterator[str]:
    with pod.front() as url:
        yield url
