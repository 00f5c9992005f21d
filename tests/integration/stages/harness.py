# SPDX-License-Identifier: Apache-2.0
"""Runs stages in this process against a real S3 server, as their pods would."""

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from r1reward_api.constants import Stage
from r1reward_api.keys import planned_key
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import ModelServing
from r1reward_api.stages import sources_of
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import InputRef, JobIdentity, RunConfig
from r1reward_trainer.codedigest import code_digests
from r1reward_trainer.context import StageContext
from r1reward_trainer.progress import ProgressReporter
from r1reward_trainer.storage.s3 import Store

SERVING = ModelServing(dtype="float32", max_model_length=128)


class Killed(BaseException):
    """Stands for SIGKILL: no handler runs."""


def die(*_: object) -> NoReturn:
    """In place of what the process does not come to."""
    raise Killed


@dataclass
class Workplace:
    """One namespace's storage and a job in it.

    Attributes:
        environ: of the S3 server's clients.
        folder: for scratch folders.
        root: URI of the job's storage.
        uid: the job's UID.
    """

    environ: Mapping[str, str]
    folder: Path
    root: str
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def store(self) -> Store:
        """Rooted at the namespace's root."""
        return Store(f"{self.root}/team", self.environ)

    def open_store(self, uri: str) -> Store:
        """A Store of any URI."""
        return Store(uri, self.environ)

    def config(
        self,
        spec: Mapping[str, Any],
        stage: Stage,
        known: Mapping[Stage, StageManifest] | None = None,
        attempt: int = 1,
    ) -> RunConfig:
        """The run configuration as the operator would make it from finished stages."""
        known = known or {}
        parsed = R1RewardJobSpec.model_validate(
            {"storage": {"uri": self.root, "secretRef": {"name": "s3"}}, **spec}
        )
        digests = {
            of: {name: output.digest for name, output in manifest.outputs.items()}
            for of, manifest in known.items()
        }
        inputs = {
            name: InputRef(
                stage=source.stage,
                key=known[source.stage].key,
                output=source.output,
                digest=digests[source.stage][source.output],
            )
            for name, source in sources_of(parsed, stage).items()
        }
        key = None
        if stage is not Stage.PREPARE:
            key = planned_key(parsed, SERVING, stage, digests, code_digests(), "")
        return RunConfig(
            job=JobIdentity(name="job", namespace="team", uid=self.uid),
            stage=stage,
            attempt=attempt,
            key=key,
            spec=parsed,
            serving=SERVING,
            inputs=inputs,
        )

    def left(self, manifest: StageManifest) -> set[str]:
        """What lies in the folders of this job's attempts at a stage: `attempt-<n>/<name>`."""
        run = f"stages/{manifest.stage}/{manifest.key}/runs/{self.uid}/"
        found = (o.key.removeprefix(run) for o in self.store.list(f"{run}attempt-"))
        return {"/".join(key.split("/")[:2]) for key in found}

    def context(self, stage: Stage, stop: threading.Event | None = None) -> StageContext:
        """A context with an empty scratch folder."""
        scratch = self.folder / f"scratch-{uuid.uuid4().hex}"
        scratch.mkdir()
        return StageContext(
            store=self.store,
            open_store=self.open_store,
            progress=ProgressReporter(stage.value, 1, None, Path("/nonexistent")),
            stop=stop or threading.Event(),
            scratch=scratch,
        )
