# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as transactions: shards, then their manifest, then the pointer.

    <run prefix>/checkpoints/latest.json                                   the pointer
    <run prefix>/checkpoints/attempt-<n>/step-<s>-<writer>/manifest.json   files with digests
    <run prefix>/checkpoints/attempt-<n>/step-<s>-<writer>/...             safetensors and JSON

The pointer is the only truth: what it does not list does not exist. It is
written by conditional puts alone, each against the ETag of the one before. An
attempt claims it before it reads it, so that an earlier attempt which still runs
somewhere (a lost node) loses its next commit, and never the later one. Two writers
never write to one folder, not even two pods of the same attempt.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import Field, ValidationError

from r1reward_api.base import ApiModel
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import FileEntry
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError, StageError
from r1reward_trainer.storage.outputs import download_files, upload_folder
from r1reward_trainer.storage.s3 import NotFound, PreconditionFailed, Store

logger = logging.getLogger(__name__)

_CLAIM_TRIES = 5
"""A claim is lost only to a commit of the earlier attempt, which is about to end."""


class CheckpointRef(ApiModel):
    """A committed checkpoint, as the pointer lists it."""

    step: int = Field(ge=0)
    """Steps done."""
    path: str
    """Below the checkpoints' prefix."""


class Pointer(ApiModel):
    """`latest.json`."""

    version: int = 1
    """Of this format."""
    attempt: int
    """The attempt that may write."""
    writer: str
    """Drawn at random by each writer: two pointers are never equal byte by byte."""
    committed: list[CheckpointRef] = []
    """Newest last; these and no others are kept."""


class CheckpointManifest(ApiModel):
    """What one checkpoint holds."""

    version: int = 1
    """Of this format."""
    step: int
    """Steps done."""
    attempt: int
    """Who wrote it."""
    path: str
    """Below the checkpoints' prefix."""
    fingerprints: dict[str, str]
    """What must be the same for the state to mean the same: data, tokenizer, ..."""
    files: list[FileEntry]
    """Every file."""


class Checkpoints:
    """The checkpoints of one run. One process claims and commits; all may upload and fetch.

    Args:
        store: rooted at the namespace's root.
        run_prefix: `RunConfig.run_prefix`: shared by all attempts of the run.
        attempt: this attempt.
        keep: how many committed checkpoints stay.
        writer: drawn at random once for all processes of this attempt.
        fingerprints: of what the run is about to use, by a name that a user understands.
    """

    def __init__(
        self,
        store: Store,
        run_prefix: str,
        attempt: int,
        keep: int,
        writer: str,
        fingerprints: Mapping[str, str],
    ) -> None:
        self._store = store
        self._prefix = f"{run_prefix}/checkpoints"
        self._attempt = attempt
        self._keep = keep
        self._fingerprints = dict(fingerprints)
        self._writer = writer
        self._etag: str | None = None
        self._committed: list[CheckpointRef] = []

    def claim(self) -> CheckpointManifest | None:
        """Becomes the only writer, and gives the last committed checkpoint, if any.

        What earlier attempts left behind is deleted here, because this one may have nothing
        more to commit.

        Raises:
            InfrastructureError: StaleWriter, when a later attempt has already claimed.
            ConfigurationError: when the checkpoint belongs to other data or another tokenizer,
                or is damaged.
        """
        for _ in range(_CLAIM_TRIES):
            pointer, etag = self._read_pointer()
            if pointer is not None and pointer.attempt > self._attempt:
                raise self._stale()
            self._committed = pointer.committed if pointer else []
            try:
                self._etag = self._put_pointer(self._committed, etag)
            except PreconditionFailed:
                continue
            manifest = self._read_manifest(self._committed[-1]) if self._committed else None
            self._prune()
            return manifest
        raise self._stale()

    def confirm(self) -> None:
        """Before a result is written: another trainer may have claimed since the last commit.

        Raises:
            InfrastructureError: StaleWriter, when one has.
        """
        pointer, _ = self._read_pointer()
        if pointer is None or pointer.writer != self._writer:
            raise self._stale()

    def fetch(self, manifest: CheckpointManifest, dest: Path) -> Path:
        """Downloads a checkpoint's files into a folder, digests verified."""
        place = f"{self._prefix}/{manifest.path}"
        download_files(self._store, place, manifest.files, dest, self._remedy())
        return dest

    def upload(self, step: int, folder: Path) -> list[FileEntry]:
        """Uploads one process's part of the checkpoint after a step; any process may."""
        return upload_folder(self._store, f"{self._prefix}/{self._path(step)}", folder)

    def commit(self, step: int, files: list[FileEntry]) -> str:
        """Makes what was uploaded the checkpoint in force.

        Until the pointer is written the former checkpoint stays; afterwards what the pointer
        no longer lists is deleted.

        Args:
            step: steps done.
            files: of all processes.

        Returns:
            The checkpoint's URI.

        Raises:
            InfrastructureError: StaleWriter, when a later attempt has claimed.
        """
        path = self._path(step)
        place = f"{self._prefix}/{path}"
        manifest = CheckpointManifest(
            step=step,
            attempt=self._attempt,
            path=path,
            fingerprints=self._fingerprints,
            files=files,
        )
        self._store.put(f"{place}/manifest.json", manifest.model_dump_json(by_alias=True).encode())
        kept = [c for c in self._committed if c.path != path]
        kept = [*kept, CheckpointRef(step=step, path=path)][-self._keep :]
        try:
            self._etag = self._put_pointer(kept, self._etag)
        except PreconditionFailed as error:
            self._withdraw(path)
            raise self._stale() from error
        self._committed = kept
        self._prune()
        return self._store.uri(place)

    def _put_pointer(self, committed: list[CheckpointRef], etag: str | None) -> str:
        pointer = Pointer(attempt=self._attempt, writer=self._writer, committed=committed)
        data = json.dumps(pointer.to_wire(), sort_keys=True).encode()
        return self._store.put_if(f"{self._prefix}/latest.json", data, etag)

    def _read_pointer(self) -> tuple[Pointer | None, str | None]:
        key = f"{self._prefix}/latest.json"
        try:
            data, etag = self._store.get_tagged(key)
            return Pointer.model_validate_json(data), etag
        except NotFound:
            return None, None
        except ValidationError as error:
            raise self._corrupt(f"{self._store.uri(key)} is no checkpoint pointer") from error

    def _read_manifest(self, ref: CheckpointRef) -> CheckpointManifest:
        key = f"{self._prefix}/{ref.path}/manifest.json"
        try:
            manifest = CheckpointManifest.model_validate_json(self._store.get(key))
        except NotFound as error:
            raise self._corrupt(
                f"{self._store.uri(key)} is gone though it was committed"
            ) from error
        except ValidationError as error:
            raise self._corrupt(f"{self._store.uri(key)} is no checkpoint manifest") from error
        then = manifest.fingerprints
        if changed := [name for name, now in self._fingerprints.items() if then.get(name) != now]:
            digests = "; ".join(f"{n}: {then.get(n)}, now {self._fingerprints[n]}" for n in changed)
            names = " and ".join(changed)
            raise ConfigurationError(
                Reason.INVALID_SPEC,
                f"checkpoint {self._store.uri(f'{self._prefix}/{ref.path}')} of step {ref.step} "
                f"was made with another {names} ({digests}): its state would not fit; "
                f"restore the {names}, or create the job under another name",
            )
        return manifest

    def _prune(self) -> None:
        """Deletes what the pointer does not list: old checkpoints and torn ones.

        A later attempt's folders stay: it may be about to commit them.
        """
        listed = {c.path for c in self._committed}
        found = {
            "/".join(o.key.removeprefix(f"{self._prefix}/").split("/")[:2])
            for o in self._store.list(f"{self._prefix}/attempt-")
        }
        for path in found - listed:
            if int(path.split("/")[0].removeprefix("attempt-")) <= self._attempt:
                self._store.delete_prefix(f"{self._prefix}/{path}")

    def _corrupt(self, message: str) -> ConfigurationError:
        return ConfigurationError(Reason.ARTIFACT_CORRUPT, f"{message}; {self._remedy()}")

    def _remedy(self) -> str:
        return (
            f"delete {self._store.uri(self._prefix)}/latest.json to train the stage from its first "
            "step again"
        )

    def _withdraw(self, path: str) -> None:
        """Deletes what was uploaded for nothing: the newer writer may never prune again.

        Not what the pointer lists: when the answer to our own put was lost, the newer writer
        has read it and goes on from it.
        """
        with suppress(StageError):  # that this writer is stale is what must be told
            pointer, _ = self._read_pointer()
            if pointer is not None and path not in {c.path for c in pointer.committed}:
                self._store.delete_prefix(f"{self._prefix}/{path}")

    def _stale(self) -> InfrastructureError:
        return InfrastructureError(
            Reason.STALE_WRITER,
            f"{self._store.uri(self._prefix)}/latest.json was written by another trainer since; "
            f"this one of attempt {self._attempt} ends",
        )

    def _path(self, step: int) -> str:
        return f"attempt-{self._attempt}/step-{step:08d}-{self._writer}"
