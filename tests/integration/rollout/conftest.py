# SPDX-License-Identifier: Apache-2.0
"""One vLLM server, two sets of weights and a fleet for the module."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from r1reward_trainer.rollout import FleetOptions, RolloutFleet, WeightPublisher
from tests.integration.rollout.reference import Reference
from tests.integration.rollout.servers import (
    JOB_UID,
    TOKEN,
    FolderStorage,
    RolloutServer,
    object_store,
    rollout_server,
)
from tests.integration.rollout.tiny_model import build_model


@dataclass(frozen=True)
class Site:
    """All that a test of the rollout needs; the server started from ``base``."""

    server: RolloutServer
    storage: FolderStorage
    fleet: RolloutFleet
    publisher: WeightPublisher
    base: Reference
    other: Reference


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("rollout")
    base = Reference(build_model(folder / "base", 1))
    other = Reference(build_model(folder / "other", 2))
    with (
        object_store(_made(folder / "objects")) as storage,
        rollout_server(_made(folder / "server"), base.folder) as server,
        RolloutFleet(
            FleetOptions(
                service="127.0.0.1",
                job_uid=JOB_UID,
                port=server.port,
                resolve_interval=0.5,
                probe_timeout=20.0,
                request_timeout=120.0,
                prepare_timeout=60.0,
                control_timeout=60.0,
                no_server_timeout=200.0,
            ),
            token=TOKEN,
            presign=lambda key: storage.presign_get(key, 3600),
        ) as fleet,
    ):
        publisher = WeightPublisher(
            storage, prefix="weights", attempt=1, work_dir=folder / "work", keep=2
        )
        yield Site(server, storage, fleet, publisher, base, other)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
