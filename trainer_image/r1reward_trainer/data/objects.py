# SPDX-License-Identifier: Apache-2.0
"""Where files of rows and images lie: in S3, or in a folder of this machine."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ProgramError
from r1reward_trainer.storage.s3 import NotFound, ObjectInfo, Store


class Objects(Protocol):
    """What reading needs of a Store."""

    def uri(self, key: str = "", /) -> str:
        """Where a key lies, in words."""
        ...

    def list(self, prefix: str = "", /) -> Iterable[ObjectInfo]:
        """All objects whose key begins with the prefix, in the order of keys."""
        ...

    def head(self, key: str, /) -> ObjectInfo | None:
        """Size and ETag, None when there is no object."""
        ...

    def get(self, key: str, /) -> bytes:
        """An object's bytes.

        Raises:
            NotFound: when there is none.
        """
        ...

    def get_file(self, key: str, path: Path, /) -> None:
        """Puts an object into a file of this machine.

        Raises:
            NotFound: when there is none.
        """
        ...


class Folder:
    """The files of a folder, as Objects.

    Args:
        root: keys are relative to it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def uri(self, key: str = "", /) -> str:
        """The file's path."""
        return str(self._root / key)

    def list(self, prefix: str = "", /) -> Iterable[ObjectInfo]:
        """All files below the root whose relative path begins with the prefix, sorted."""
        head, _, tail = prefix.rpartition("/")
        folder = self._root / head
        tops = folder.iterdir() if folder.is_dir() else ()
        begun = (top for top in tops if top.name.startswith(tail))
        paths = (path for top in begun for path in ([top] if top.is_file() else top.rglob("*")))
        return map(self._info, sorted(path for path in paths if path.is_file()))

    def head(self, key: str, /) -> ObjectInfo | None:
        """Size of a file, None when there is none."""
        path = self._root / key
        return self._info(path) if path.is_file() else None

    def get(self, key: str, /) -> bytes:
        """A file's bytes.

        Raises:
            NotFound: when there is none.
        """
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(key) from error

    def get_file(self, key: str, path: Path, /) -> None:
        """Links the file instead of copying it.

        Raises:
            NotFound: when there is none.
        """
        if self.head(key) is None:
            raise NotFound(key)
        path.symlink_to((self._root / key).resolve())

    def _info(self, path: Path) -> ObjectInfo:
        stat = path.stat()
        key = path.relative_to(self._root).as_posix()
        return ObjectInfo(key, stat.st_size, f"{stat.st_mtime_ns:x}")


def open_objects(uri: str) -> Objects:
    """A store of an s3:// URI with the environment's credentials, or a folder of this machine."""
    return Store.from_env(uri) if uri.startswith("s3://") else Folder(Path(uri or "."))


def changed_meanwhile(reason: Reason, what: str) -> ProgramError:
    """For what was listed, then read, and is listed otherwise now: its result must not be known by
    the digest of what it was. The next attempt reads it anew."""
    return ProgramError(
        reason,
        f"{what} changed while it was read; leave it as it is while a job prepares, and write what "
        "is new to a new place",
    )
