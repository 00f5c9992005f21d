# SPDX-License-Identifier: Apache-2.0
"""An evaluation's results, put where a person or a pipeline looks first: below `jobs/<name>/`.

Jobs of one name come one after another, and a pod of a deleted one may still run somewhere, as on
a node that was thought lost. No clock and no number orders two UIDs, so the folder belongs to the
pod that claimed it last: prepare and evaluate claim when they start, by a conditional put of
`claim.json`, and who has lost the claim since writes nothing there.

`latest.json` is moved by a conditional put against what lay there before the claim was looked at:
whoever has lost the claim either sees so, or loses that put to the result that stands there. Two
things remain. A pod of a deleted job that only *starts* after a pod of its successor takes the
claim away; the successor's attempt then ends with StaleWriter, and its next one takes it back,
unless the successor was done before. And copies are plain puts: a pod that stood still in the
middle of one may go on with it later. `latest.json` names no copies.
"""

import json
import uuid
from collections.abc import Set
from pathlib import Path

from r1reward_api import gates
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import RunConfig, stage_prefix
from r1reward_trainer.outcome import InfrastructureError
from r1reward_trainer.storage.errors import NotFound, PreconditionFailed
from r1reward_trainer.storage.outputs import download_files, upload_folder
from r1reward_trainer.storage.s3 import Store

_TRIES = 5
"""A conditional put is lost to another pod's, of which few start at once."""


class Handover:
    """`jobs/<name>/`, claimed for this pod.

    Args:
        store: rooted at the namespace's root.
        config: of the run.

    Raises:
        InfrastructureError: storage does not answer, or others claim again and again.
    """

    def __init__(self, store: Store, config: RunConfig) -> None:
        self._store = store
        self._config = config
        self._folder = f"jobs/{config.job.name}"
        self._claim = self._claimed()

    def put(self, manifest: StageManifest, scratch: Path) -> None:
        """Copies predictions and report here, and moves `latest.json` to the evaluation unless one
        of its gates was not passed.

        What killed attempts have left half uploaded here is ended, and what an earlier result had
        more of is deleted.

        Args:
            manifest: of the evaluation, perhaps another run's.
            scratch: a folder of this pod.

        Raises:
            ConfigurationError: ArtifactCorrupt, when they are not what the manifest says.
            InfrastructureError: storage does not answer; StaleWriter, when another pod has claimed
                the folder since.
        """
        store, folder = self._store, self._folder
        prefix = stage_prefix(manifest.stage, manifest.key)
        for name, output in manifest.outputs.items():
            copy = scratch / "copies" / name
            download_files(store, f"{prefix}/{output.path}", output.files, copy)
            self._confirm()
            store.end_uploads(f"{folder}/{name}/")
            upload_folder(store, f"{folder}/{name}", copy)
            self._clear(f"{folder}/{name}/", {file.path for file in output.files})
        judged = gates.read(manifest.summary)
        if judged is None or judged[0]:
            self._move(_pointer(self._config, manifest))

    def _claimed(self) -> str:
        """The ETag of this pod's claim."""
        job = self._config.job
        claim = {
            "version": 1,
            "job": {"name": job.name, "uid": job.uid},
            "stage": self._config.stage.value,
            "attempt": self._config.attempt,
            "writer": uuid.uuid4().hex,  # no two claims are equal byte by byte
        }
        key, data = f"{self._folder}/claim.json", json.dumps(claim, indent=1).encode()
        for _ in range(_TRIES):
            found = self._store.head(key)
            try:
                return self._store.put_if(key, data, found.etag if found else None)
            except PreconditionFailed:
                continue
        raise self._stale()

    def _confirm(self) -> None:
        found = self._store.head(f"{self._folder}/claim.json")
        if found is None or found.etag != self._claim:
            raise self._stale()

    def _clear(self, folder: str, kept: Set[str]) -> None:
        """Deletes what an earlier result had more of: a reader of a folder would mix the two."""
        self._confirm()
        found = [o.key for o in self._store.list(folder) if o.key.removeprefix(folder) not in kept]
        for key in found:
            self._store.delete(key)

    def _move(self, pointer: bytes) -> None:
        key = f"{self._folder}/latest.json"
        for _ in range(_TRIES):
            try:
                found, etag = self._store.get_tagged(key)
            except NotFound:
                found, etag = None, None
            if found == pointer:
                return
            self._confirm()  # after the ETag is known: a result of who claims next changes it
            try:
                self._store.put_if(key, pointer, etag)
                return
            except PreconditionFailed:  # by a pod that had the claim before, or has it by now
                continue
        raise self._stale()

    def _stale(self) -> InfrastructureError:
        return InfrastructureError(
            Reason.STALE_WRITER,
            f"{self._store.uri(self._folder)}/claim.json was written by another pod since; this "
            f"one of attempt {self._config.attempt} of {self._config.stage} ends",
        )


def _pointer(config: RunConfig, manifest: StageManifest) -> bytes:
    """Where the result lies, relative to the namespace's root."""
    prefix = stage_prefix(manifest.stage, manifest.key)
    pointer = {
        "version": 1,
        "job": {"name": config.job.name, "uid": config.job.uid, "attempt": config.attempt},
        "manifest": f"{prefix}/manifest.json",
        "outputs": {name: f"{prefix}/{o.path}" for name, o in manifest.outputs.items()},
        "summary": manifest.summary,
    }
    return json.dumps(pointer, indent=1, ensure_ascii=False).encode()
