# SPDX-License-Identifier: Apache-2.0
"""Files that are scored and folders that take the scores: on this machine or in S3, the same."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from r1reward_api.reasons import Reason
from r1reward_trainer.data import files
from r1reward_trainer.data.media import Beside
from r1reward_trainer.data.objects import open_objects
from r1reward_trainer.data.sources import find_files
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.s3 import NotFound, Store

COLUMNS = ("id", "question", "answers", "answer1", "answer2", "images")
"""What is read of a table."""
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
    """The files of a path or s3:// URI, in which `*` matches within a folder.

    Raises:
        ConfigurationError: there is none, or one is of an unknown kind.
    """
    found = find_files("input", pattern, open_objects)
    return [InputFile(_absolute(f.uri), f"{f.bytes}-{f.etag}") for f in found]


def records(file: InputFile, scratch: Path) -> Iterator[files.RecordOrFault]:
    """The rows of a file in their order, a few in memory at a time, or why one cannot be read.

    Args:
        file: where it lies.
        scratch: folder to which an object is downloaded, and from which it is deleted.

    Raises:
        ConfigurationError: the file cannot be read at all, or is not there any more.
    """
    folder, _, name = file.uri.rpartition("/")
    local = scratch / f"{file.name}{PurePosixPath(name).suffix}"
    try:
        open_objects(folder or "/").get_file(name, local)
        for _, record in files.read(local, file.uri, COLUMNS, ()):
            yield record
    except NotFound as error:
        raise ConfigurationError(Reason.INVALID_DATA, f"input: {error}") from error
    finally:
        local.unlink(missing_ok=True)


def beside(file: InputFile) -> Beside:
    """What the rows of a file may refer to."""
    folder, _, name = file.uri.rpartition("/")
    return Beside(open_objects(folder or "/"), name)


def _absolute(uri: str) -> str:
    return uri if uri.startswith(_S3) else str(Path(uri).resolve())


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
        names = (path.name for path in self._folder.iterdir())
        return {name for name in names if not name.startswith(".")}  # such as parts of a kill

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


def json_line(value: Any) -> bytes:
    """A line of an output."""
    return json.dumps(value).encode() + b"\n"
