# SPDX-License-Identifier: Apache-2.0
"""Images and video frames that lie beside a file of rows."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TypeVar

from r1reward_trainer.data.objects import Objects
from r1reward_trainer.storage.s3 import NotFound, ObjectInfo

T = TypeVar("T")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_IMAGE_BYTES = 64 * 2**20
MAX_PATH_BYTES = 500
MAX_NAME_BYTES = 255
"""Of each part of a path: stores on a file system refuse longer ones."""
MAX_FRAMES = 32
"""Of a video: as many as the release of R1-Reward takes."""
_CACHED_IMAGES = 8
_KNOWN_PREFIXES = 16
_SHOWN_CHARACTERS = 300


class Beside:
    """What the rows of one file may refer to: files in its folder and below.

    A relative path is taken from the file's folder. A path that begins with `prefix` is what
    follows it. Any other absolute path comes from the machine that wrote the rows: its last parts
    are looked for, and it counts only where exactly one of them exists. What was before them is
    then taken for that machine's name of the folder. Two such paths are never one file. No path
    leaves the folder.

    Args:
        store: rooted where the file's name begins.
        name: of the file of rows.
        prefix: what stands for the file's folder in the rows.
    """

    def __init__(self, store: Objects, name: str, prefix: str | None = None) -> None:
        self._store = store
        self._name = name
        self._folder = PurePosixPath(name).parent
        self._prefix = prefix
        self._known: list[str] = []
        self._before: dict[str, str] = {}  # a machine's folders, each once
        self._claims: dict[int, str] = {}  # what stood before a place, by the place's hash
        self.videos_cut = 0
        """Of which fewer frames were given than a larger `most` had allowed."""
        self._cached = lru_cache(maxsize=_CACHED_IMAGES)(self._read)

    def image(self, path: str) -> bytes:
        """Bytes of the image at a path.

        Raises:
            LookupError: there is none, it is not below the folder, or it is too large.
        """
        return self._cached(path)  # rows about one image mostly follow each other

    def frames(self, folder: str, most: int) -> list[bytes]:
        """The frames of a video: the images in its folder, in the order of the numbers in their
        names; evenly spaced ones where there are more than `most` or MAX_FRAMES.

        Raises:
            LookupError: there are none.
        """
        tried = self._candidates(folder)
        found = {place: frames for place in tried if (frames := self._frames_in(place))}
        place = self._only(folder, tried, list(found))
        self._claim(folder, place)
        frames = sorted(found[place], key=lambda frame: by_number(frame.key))
        self.videos_cut += min(len(frames), MAX_FRAMES) > most
        return [self._get(frame) for frame in evenly(frames, min(most, MAX_FRAMES))]

    def _read(self, path: str) -> bytes:
        for known in self._known:
            if path.startswith(known) and (info := self._info(path[len(known) :])):
                self._claim(path, path[len(known) :])
                return self._get(info)
        tried = self._candidates(path)
        found = {rest: info for rest in tried if (info := self._info(rest))}
        rest = self._only(path, tried, list(found))
        self._claim(path, rest)
        if path.startswith("/") and len(self._known) < _KNOWN_PREFIXES:
            self._known.append(path[: len(path) - len(rest)])
        return self._get(found[rest])

    def _claim(self, path: str, place: str) -> None:
        """Refuses what another path of another machine was taken for before: they were two files.

        Raises:
            LookupError: with both paths.
        """
        if not path.startswith("/") or (self._prefix and path.startswith(self._prefix)):
            return
        before = str(PurePosixPath(path.rstrip("/").removesuffix(place)))
        before = self._before.setdefault(before, before)
        claimed = self._claims.setdefault(hash(place), before)
        if claimed != before:
            raise LookupError(
                f"{path[:_SHOWN_CHARACTERS]} and {f'{claimed}/{place}'[:_SHOWN_CHARACTERS]} would "
                f"both be {self._store.uri(self._key(place))}: say in imagePrefix what stands for "
                "the folder, or write relative paths"
            )

    def _candidates(self, path: str) -> list[str]:
        found = relative_paths(path, self._prefix)
        if not found:
            raise LookupError(
                f"{path[:_SHOWN_CHARACTERS]!a} is not a path below the folder of {self._uri}"
            )
        return found

    def _only(self, path: str, tried: Sequence[str], found: Sequence[str]) -> str:
        if len(found) == 1:
            return found[0]
        if found:
            raise LookupError(
                f"{path[:_SHOWN_CHARACTERS]} may be any of {', '.join(found)} beside {self._uri}: "
                "say in imagePrefix what stands for the folder"
            )
        absent = self._store.uri(self._key(tried[0]))
        if len(tried) == 1:
            raise LookupError(f"there is no {absent}")
        raise LookupError(
            f"{path[:_SHOWN_CHARACTERS]}: there is neither {absent} nor a file at its last parts; "
            "say in imagePrefix what stands for the folder"
        )

    def _info(self, path: str) -> ObjectInfo | None:
        return self._store.head(self._key(path)) if is_relative(path) else None

    def _frames_in(self, place: str) -> list[ObjectInfo]:
        folder = self._key(place) + "/"
        return [
            found
            for found in self._store.list(folder)
            if "/" not in found.key[len(folder) :] and found.key.lower().endswith(IMAGE_SUFFIXES)
        ]

    def _get(self, info: ObjectInfo) -> bytes:
        if info.bytes > MAX_IMAGE_BYTES:
            raise LookupError(
                f"{self._store.uri(info.key)} has {info.bytes} bytes, limit {MAX_IMAGE_BYTES}"
            )
        try:
            return self._store.get(info.key)
        except NotFound as error:
            raise LookupError(str(error)) from error

    def _key(self, path: str) -> str:
        return (self._folder / path).as_posix()

    @property
    def _uri(self) -> str:
        return self._store.uri(self._name)


def relative_paths(path: str, prefix: str | None = None) -> list[str]:
    """Paths below the folder that a path of the rows can mean, the longest first."""
    if prefix is not None and path.startswith(prefix):
        path = path[len(prefix) :].lstrip("/")
    if not path.startswith("/"):
        return [path] if is_relative(path) else []
    parts = path.strip("/").split("/")
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    return [end for end in ends if is_relative(end)] if is_relative(ends[0]) else []


def is_relative(path: str) -> bool:
    """True for a path that stays below its folder, and that every store takes."""
    if not path.isprintable() or "://" in path or len(path.encode()) > MAX_PATH_BYTES:
        return False
    parts = PurePosixPath(path).parts
    longest = max(len(part.encode()) for part in (*parts, ""))
    return (
        bool(parts) and not path.startswith("/") and ".." not in parts and longest <= MAX_NAME_BYTES
    )


def by_number(name: str) -> tuple[list[int], str]:
    """Sorts frame_2 before frame_10; names without numbers by themselves."""
    last = PurePosixPath(name).name
    return [int(digits) for digits in re.findall(r"[0-9]{1,18}", last)], last


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly spaced, the first and the last among them: those that the released
    evaluation takes, `numpy.linspace` with fractions cut off."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[0]]
    return [items[n * (len(items) - 1) // (most - 1)] for n in range(most)]
