# SPDX-License-Identifier: Apache-2.0
"""Files that are scored and folders that take the scores: on this machine or in S3, the same."""

import glob
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from r1reward_api.reasons import Reason
from r1reward_trainer.data.files import MAX_RECORD_BYTES
from r1reward_trainer.data.media import MAX_IMAGE_BYTES
from r1reward_trainer.data.sources import find_files
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.s3 import NotFound, Store

SUFFIXES = (".parquet", ".jsonl")
_BATCH_ROWS = 16
_S3 = "s3://"


@dataclass(frozen=True)
class InputFile:
    """One file; it can be sent to another process.

    Attributes:
        uri: where it lies.
        version: changes with its content: size and ETag, or size and time.
    """

    uri: str
    version: str

    @property
    def name(self) -> str:
        """Unlike that of any other input, and fit for a file name."""
        digest = hashlib.sha256(self.uri.encode()).hexdigest()[:8]
        return f"{PurePosixPath(self.uri).stem[:100]}-{digest}"


def find_inputs(pattern: str) -> list[InputFile]:
    """The Parquet and JSONL files of a path or s3:// URI, in which `*` matches within a folder.

    Raises:
        ConfigurationError: there is none, or one is of another kind.
    """
    if pattern.startswith(_S3):
        found = find_files("input", pattern, Store.from_env)
        return [InputFile(f.uri, f"{f.bytes}-{f.etag}") for f in found]
    paths = [Path(p) for p in sorted(glob.glob(pattern))]  # noqa: PTH207  a pattern, not a folder
    if not paths:
        raise ConfigurationError(Reason.INVALID_DATA, f"input: no file matches {pattern}")
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise ConfigurationError(
                Reason.INVALID_DATA, f"input: {path} is neither .parquet nor .jsonl"
            )
    return [
        InputFile(str(p.resolve()), f"{p.stat().st_size}-{p.stat().st_mtime_ns}") for p in paths
    ]


def records(file: InputFile, scratch: Path) -> Iterator[Any]:
    """The rows of a file in their order, a few in memory at a time.

    A line that is no JSON comes as the ValueError that says so.

    Args:
        file: Parquet or JSONL.
        scratch: folder to which an object is downloaded, and from which it is deleted.

    Raises:
        ConfigurationError: a Parquet file cannot be read, or is not there any more.
    """
    if not file.uri.startswith(_S3):
        yield from _records(Path(file.uri), file.uri)
        return
    folder, _, key = file.uri.rpartition("/")
    local = scratch / f"{file.name}{PurePosixPath(key).suffix}"
    try:
        Store.from_env(folder).get_file(key, local)
        yield from _records(local, file.uri)
    except NotFound as error:
        raise ConfigurationError(Reason.INVALID_DATA, f"input: {error}") from error
    finally:
        local.unlink(missing_ok=True)


def _records(path: Path, uri: str) -> Iterator[Any]:
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            while line := lines.readline(MAX_RECORD_BYTES):
                yield _parsed(line)
        return
    try:
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(
            Reason.INVALID_DATA, f"{uri} cannot be read as Parquet: {str(error)[:300]}"
        ) from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return ValueError(f"is no JSON ({type(error).__name__}: {error})"[:200])


def read_beside(file: InputFile, path: str) -> bytes:
    """The bytes at a path relative to a file's folder.

    Raises:
        LookupError: there is nothing, or it is outside of the folder.
    """
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not path.isprintable():
        raise LookupError(f"{path[:200]!a} is not a path below the folder of {file.uri}")
    folder = file.uri.rpartition("/")[0]
    if file.uri.startswith(_S3):
        store = _store(folder)
        info = store.head(path)
        if info is None or info.bytes > MAX_IMAGE_BYTES:
            raise LookupError(f"there is no {folder}/{path}, or it is too large")
        return store.get(path)
    try:
        whole = (Path(folder) / path).resolve(strict=True)
        if not whole.is_relative_to(Path(folder).resolve()):
            raise LookupError(f"{path[:200]!a} leads out of {folder}")
        return whole.read_bytes()
    except OSError as error:
        raise LookupError(f"{folder}/{path}: {error.strerror}") from error


@lru_cache(maxsize=8)
def _store(folder: str) -> Store:
    return Store.from_env(folder)


class Output(Protocol):
    """A folder of small files that appear whole or not at all."""

    def names(self) -> set[str]:
        """Of all files."""
        ...

    def get(self, name: str) -> bytes | None:
        """A file's content, None when it is not there."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Writes a file."""
        ...


def open_output(place: str) -> Output:
    """The folder at a path or s3:// URI."""
    if place.startswith(_S3):
        return _Bucket(Store.from_env(place))
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    return _Folder(folder)


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> set[str]:
        return {path.name for path in self._folder.iterdir()}

    def get(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes) -> None:
        part = self._folder / f".{name}.part"
        part.write_bytes(data)
        part.replace(self._folder / name)


class _Bucket:
    def __init__(self, store: Store) -> None:
        self._store = store

    def names(self) -> set[str]:
        return {found.key for found in self._store.list("")}

    def get(self, name: str) -> bytes | None:
        try:
            return self._store.get(name)
        except NotFound:
            return None

    def put(self, name: str, data: bytes) -> None:
        self._store.put(name, data)
