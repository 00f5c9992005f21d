# SPDX-License-Identifier: Apache-2.0
"""The images of the rows that are judged, found again by their bytes or by what they show."""

from array import array

import numpy as np

from r1reward_trainer.data.perceptual import LIKE, SIDE, Looks, likeness, looks
from r1reward_trainer.data.split import ImageHash, image_hash

_COMPARED = 512
"""Thumbnails that are compared at once: some megabytes of floating-point numbers each time."""

Found = list[tuple[int, float]]


class Pictures:
    """Knows images by the numbers of the rows that show them: SIDE² bytes and two hashes for each
    different image."""

    def __init__(self) -> None:
        self._rows: dict[ImageHash, list[int]] = {}
        self._names: list[ImageHash] = []
        self._shapes: array[int] = array("Q")
        self._steps: array[int] = array("Q")
        self._thumbnails = bytearray()
        self._last: tuple[ImageHash, Found] | None = None

    def add(self, image: bytes, row: int) -> None:
        """Takes in an image of a row."""
        self._last = None
        name = image_hash(image)
        rows = self._rows.setdefault(name, [])
        rows.append(row)
        if len(rows) > 1 or (shown := looks(image)) is None:
            return
        self._names.append(name)
        self._shapes.append(shown.shape)
        self._steps.append(shown.steps)
        self._thumbnails += shown.thumbnail.tobytes()

    def like(self, image: bytes) -> Found:
        """The rows that show the image or a copy of it, and how much alike they are, to 1."""
        name = image_hash(image)
        if self._last is None or self._last[0] != name:  # rows about one image mostly follow
            self._last = (name, self._search(name, image))  # each other
        return self._last[1]

    def _search(self, name: ImageHash, image: bytes) -> Found:
        found = [(row, 1.0) for row in self._rows.get(name, ())]
        if (shown := looks(image)) is not None:
            for number, alike in self._copies(shown):
                if self._names[number] != name:
                    found += [(row, alike) for row in self._rows[self._names[number]]]
        return found

    def _copies(self, shown: Looks) -> Found:
        differing = _bits(self._shapes, shown.shape) + _bits(self._steps, shown.steps)
        candidates = np.flatnonzero(differing <= LIKE)
        thumbnails = np.frombuffer(self._thumbnails, dtype=np.uint8).reshape(
            len(self._names), SIDE, SIDE
        )
        found: Found = []
        for start in range(0, len(candidates), _COMPARED):
            some = candidates[start : start + _COMPARED]
            alike = likeness(shown.thumbnail, thumbnails[some])
            hits = np.flatnonzero(alike)
            found += zip(some[hits].tolist(), alike[hits].tolist(), strict=True)
        return found


def _bits(hashes: "array[int]", one: int) -> np.ndarray:
    """In how many bits each differs from the one."""
    return np.bitwise_count(np.asarray(hashes, dtype=np.uint64) ^ np.uint64(one)).astype(np.int64)
