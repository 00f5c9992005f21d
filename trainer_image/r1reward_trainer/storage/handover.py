# SPDX-License-Identifier: Apache-2.0
"""An evaluation's results, put where a person or a pipeline looks first: below `jobs/<name>/`."""

import json
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


def hand_over(store: Store, config: RunConfig, manifest: StageManifest, scratch: Path) -> None:
    """Copies predictions and report to `jobs/<name>/`, and moves `jobs/<name>/latest.json` to
    the evaluation unless one of its gates was not passed.

    What killed attempts have left half uploaded there is ended, and what an earlier result had more
    of is deleted.

    Args:
        store: rooted at the namespace's root.
        config: of the run.
        manifest: of the evaluation, perhaps another run's.
        scratch: a folder of this pod.

    Raises:
        ConfigurationError: ArtifactCorrupt, when they are not what the manifest says.
        InfrastructureError: storage does not answer, or another attempt moved the pointer.
    """
    prefix, folder = stage_prefix(manifest.stage, manifest.key), f"jobs/{config.job.name}"
    store.end_uploads(f"{folder}/")
    for name, output in manifest.outputs.items():
        copy = scratch / "copies" / name
        download_files(store, f"{prefix}/{output.path}", output.files, copy)
        upload_folder(store, f"{folder}/{name}", copy)
        _clear(store, f"{folder}/{name}/", {file.path for file in output.files})
    judged = gates.read(manifest.summary)
    if judged is None or judged[0]:
        _move(store, f"{folder}/latest.json", _pointer(config, manifest))


def _clear(store: Store, folder: str, kept: Set[str]) -> None:
    """Deletes what an earlier result had more of: a reader of a folder would mix the two."""
    stale = [
        found.key for found in store.list(folder) if found.key.removeprefix(folder) not in kept
    ]
    for key in stale:
        store.delete(key)


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


def _move(store: Store, key: str, pointer: bytes) -> None:
    try:
        found, etag = store.get_tagged(key)
    except NotFound:
        found, etag = None, None
    if found == pointer:
        return
    try:
        store.put_if(key, pointer, etag)
    except PreconditionFailed as error:
        raise InfrastructureError(
            Reason.STALE_WRITER, f"{store.uri(key)} was moved by another attempt meanwhile"
        ) from error
