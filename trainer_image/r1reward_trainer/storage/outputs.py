# SPDX-License-Identifier: Apache-2.0
"""Outputs of stages: uploaded with digests, published once, fetched with verification."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from r1reward_api.constants import Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import FileEntry, Output, StageManifest, tree_digest
from r1reward_api.wire.runconfig import InputRef, RunConfig, stage_prefix
from r1reward_trainer.outcome import ConfigurationError, StageError
from r1reward_trainer.storage.s3 import RECOMPUTE, NotFound, PreconditionFailed, Store

PARALLEL_FILES = 4


def upload_folder(store: Store, prefix: str, folder: Path) -> list[FileEntry]:
    """Uploads every file below a folder to the prefix.

    Returns:
        The files with their digests, paths relative to the folder, sorted.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file())

    def upload(path: Path) -> FileEntry:
        relative = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        store.put_file(path, f"{prefix}/{relative}")
        return FileEntry(path=relative, bytes=path.stat().st_size, sha256=digest)

    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        return list(pool.map(upload, paths))


def download_files(
    store: Store, prefix: str, files: list[FileEntry], dest: Path, remedy: str = RECOMPUTE
) -> None:
    """Downloads the files of a manifest below a prefix into a folder, digests verified.

    Args:
        store: where from.
        prefix: of the files' paths.
        files: as the manifest lists them.
        dest: the folder; made when missing.
        remedy: what to do about a file that is not what it should be.

    Raises:
        ConfigurationError: ArtifactCorrupt, for a file that is absent, differs from its
            manifest, or would leave the folder.
    """

    def download(entry: FileEntry) -> None:
        relative = PurePosixPath(entry.path)
        if relative.is_absolute() or ".." in relative.parts:
            raise _corrupt(f"{store.uri(prefix)} lists {entry.path!r}, which leaves its folder")
        key = f"{prefix}/{entry.path}"
        try:
            store.get_file(key, dest / relative, entry.sha256, remedy)
        except NotFound as error:
            raise _gone(store, key, remedy) from error

    dest.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        list(pool.map(download, files))


def verify_files(store: Store, files: Iterable[tuple[str, str]]) -> None:
    """Reads objects and compares their digests; nothing is kept.

    Args:
        store: where they lie.
        files: keys with sha256.

    Raises:
        ConfigurationError: ArtifactCorrupt, for the first that is absent or differs.
    """
    for key, sha256 in files:
        try:
            store.verify(key, sha256)
        except NotFound as error:
            raise _gone(store, key, RECOMPUTE) from error


def upload_output(
    store: Store, config: RunConfig, name: str, folder: Path, rows: int | None = None
) -> Output:
    """Uploads a folder as a named output of this attempt.

    Args:
        store: rooted at `config.root`.
        config: of the run; its key must be known.
        name: see `r1reward_api.stages`.
        folder: its content.
        rows: where it is a table.
    """
    files = upload_folder(store, f"{config.attempt_prefix}/{name}", folder)
    return Output(
        path=f"runs/{config.job.uid}/attempt-{config.attempt}/{name}",
        digest=tree_digest(files),
        bytes=sum(f.bytes for f in files),
        rows=rows,
        files=files,
    )


def publish(
    store: Store,
    config: RunConfig,
    outputs: dict[str, Output],
    summary: dict[str, str],
) -> tuple[StageManifest, bool]:
    """Makes the outputs the stage's result, unless somebody was first.

    What this run's attempts have uploaded for nothing is deleted.

    Args:
        store: rooted at `config.root`.
        config: of the run; its key must be known.
        outputs: uploaded before.
        summary: figures for the job's status.

    Returns:
        The manifest in force, and True when it is another job's, which is adopted.
    """
    key = _key_of(config)
    manifest = StageManifest(
        stage=config.stage,
        key=key,
        outputs=outputs,
        summary=summary,
        created_by=config.job.uid,
        attempt=config.attempt,
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    data = manifest.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    try:
        store.put_if(_manifest_key(config.stage, key), data, None)
    except PreconditionFailed:
        existing = find(store, config.stage, key)
        if existing is None:
            raise _corrupt(
                f"the manifest of stage {config.stage} with key {key} came and went; try again"
            ) from None
        _delete_unpublished(store, config, existing)
        return existing, existing.created_by != config.job.uid
    _delete_unpublished(store, config, manifest)
    return manifest, False


def begin(store: Store, config: RunConfig) -> StageManifest | None:
    """As `find`, for the first process of a stage that is about to be computed.

    What killed attempts of this run have left half uploaded is ended; once there is a result, what
    they have uploaded for nothing is deleted.
    """
    key = _key_of(config)
    if config.attempt > 1:
        store.end_uploads(f"{config.run_prefix}/")
    manifest = find(store, config.stage, key)
    if manifest is not None:
        _delete_unpublished(store, config, manifest)
    return manifest


def _delete_unpublished(store: Store, config: RunConfig, manifest: StageManifest) -> None:
    """Deletes what lies in the folders of this run's attempts and is no output of the result.

    Those are outputs of attempts that were killed before they published, this one's own when
    another was first, and what rl's servers have read their weights from. Only after the manifest
    is there: until then an earlier attempt, if it still runs, may publish what it has uploaded.
    Checkpoints and journals, from which attempts resume, lie beside these folders; other runs, and
    later attempts of this one, see to their own.
    """
    published = {output.path for output in manifest.outputs.values()}
    attempts = f"{config.run_prefix}/attempt-"
    with suppress(StageError):  # the result stands, whatever cannot be deleted
        found = {
            "/".join(o.key.removeprefix(attempts).split("/")[:2]) for o in store.list(attempts)
        }
        for folder in sorted(found):
            if int(folder.split("/")[0]) > config.attempt:
                continue
            if f"runs/{config.job.uid}/attempt-{folder}" not in published:
                store.delete_prefix(f"{attempts}{folder}")


def find(store: Store, stage: Stage, key: str) -> StageManifest | None:
    """The manifest of a stage that has already been computed, None when it has not.

    Raises:
        ConfigurationError: ArtifactCorrupt, when what lies there is no manifest of it.
    """
    place = _manifest_key(stage, key)
    try:
        manifest = StageManifest.model_validate_json(store.get(place))
    except NotFound:
        return None
    except ValidationError as error:
        raise _corrupt(
            f"{store.uri(place)} is no stage manifest ({error.errors()[0]['msg']}); delete it to "
            "compute the stage anew"
        ) from error
    if (manifest.stage, manifest.key) != (stage, key):
        raise _corrupt(
            f"{store.uri(place)} is the manifest of {manifest.stage} {manifest.key}; delete it to "
            "compute the stage anew"
        )
    return manifest


def read_manifest(store: Store, ref: InputRef) -> StageManifest:
    """The manifest that an input refers to.

    Raises:
        ConfigurationError: ArtifactCorrupt, when it is not there.
    """
    manifest = find(store, ref.stage, ref.key)
    if manifest is None:
        place = store.uri(_manifest_key(ref.stage, ref.key))
        raise _corrupt(f"{place} is gone; create the job again to compute stage {ref.stage} anew")
    return manifest


def input_output(store: Store, config: RunConfig, name: str) -> Output:
    """The output that stands behind an input, its digest compared with the configuration's.

    Raises:
        ConfigurationError: the input is not configured, or is not what was promised.
    """
    ref = config.inputs.get(name)
    if ref is None:
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            f"stage {config.stage} needs input {name!r}; configured are {sorted(config.inputs)}",
        )
    output = read_manifest(store, ref).outputs.get(ref.output)
    place = store.uri(_manifest_key(ref.stage, ref.key))
    if output is None:
        raise _corrupt(f"{place} has no output {ref.output!r}; {RECOMPUTE}")
    if not ref.digest == output.digest == tree_digest(output.files):
        raise _corrupt(
            f"{place}: output {ref.output!r} has digest {output.digest} and files of digest "
            f"{tree_digest(output.files)}, expected {ref.digest}; {RECOMPUTE}"
        )
    return output


def fetch_input(store: Store, config: RunConfig, name: str, dest: Path) -> Path:
    """Downloads an input into a folder, every digest verified.

    Returns:
        The folder.

    Raises:
        ConfigurationError: ArtifactCorrupt, or InvalidSpec when the input is not configured.
    """
    output = input_output(store, config, name)
    ref = config.inputs[name]
    prefix = f"{stage_prefix(ref.stage, ref.key)}/{output.path}"
    download_files(store, prefix, output.files, dest)
    return dest


def _key_of(config: RunConfig) -> str:
    if config.key is None:
        raise ValueError(f"the key of stage {config.stage} is not known")
    return config.key


def _manifest_key(stage: Stage, key: str) -> str:
    return f"{stage_prefix(stage, key)}/manifest.json"


def _gone(store: Store, key: str, remedy: str) -> ConfigurationError:
    return _corrupt(f"{store.uri(key)} is in its manifest but not in storage; {remedy}")


def _corrupt(message: str) -> ConfigurationError:
    return ConfigurationError(Reason.ARTIFACT_CORRUPT, message)
