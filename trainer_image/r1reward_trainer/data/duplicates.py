# SPDX-License-Identifier: Apache-2.0
"""Rows that say the same: the same pair again, turned round, or with the other verdict.

Some 25 bytes are kept of each row, and its id.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from r1reward_api.canonical import canonical_json
from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.split import ImageHash

_EXAMPLES = 10
_SHOWN_BYTES = 64
_TURNED, _FIRST_IS_BETTER = 1, 2


class Duplicates:
    """Notes rows and finds those that repeat another."""

    def __init__(self) -> None:
        self._pairs = array("Q")
        self._ways = array("B")
        self._ids = array("Q")
        self._ends = array("Q", [0])
        self._names = bytearray()

    def note(self, row: Row, images: Sequence[ImageHash]) -> None:
        """Takes in a row.

        Args:
            row: as it was read.
            images: hashes of its images.
        """
        turned = row.answer1 > row.answer2
        first_is_better = (row.gold == 1) != turned  # the first in alphabetical order
        answers = sorted((row.answer1, row.answer2))
        self._pairs.append(_hash([row.question, *answers, *(image.hex() for image in images)]))
        self._ways.append(_TURNED * turned + _FIRST_IS_BETTER * first_is_better)
        self._ids.append(_hash(row.id))
        self._names += row.id.encode()[:_SHOWN_BYTES]
        self._ends.append(len(self._names))

    def repeated_ids(self) -> tuple[int, list[str]]:
        """How many rows have the id of an earlier one, and the first such ids."""
        groups = _groups(np.array(self._ids, dtype=np.uint64))
        examples = [self._id(rows[0]) for rows in _first(groups(), _EXAMPLES)]
        return sum(len(rows) - 1 for rows in groups()), examples

    def figures(self) -> dict[str, Any]:
        """Rows that repeat an earlier one of the same question, answers and images.

        exact: with the answers in the same order; swapped: in the other order; conflicting: with
        the other answer as the better one, in whichever order. Each row counts once, conflicting
        before exact before swapped.
        """
        counts = {"exact": 0, "swapped": 0, "conflicting": 0}
        examples: list[dict[str, Any]] = []
        for rows in _groups(np.array(self._pairs, dtype=np.uint64))():
            first = self._ways[rows[0]]
            seen = {first}
            for row in rows[1:]:
                way = self._ways[row]
                if (way ^ first) & _FIRST_IS_BETTER:
                    kind = "conflicting"
                else:
                    kind = "exact" if way in seen else "swapped"
                seen.add(way)
                counts[kind] += 1
                if len(examples) < _EXAMPLES:
                    examples.append({"row": self._id(row), "of": self._id(rows[0]), "kind": kind})
        return {**counts, "examples": examples}

    def _id(self, row: int) -> str:
        return self._names[self._ends[row] : self._ends[row + 1]].decode(errors="ignore")


def _groups(values: npt.NDArray[np.uint64]) -> Callable[[], Iterator[list[int]]]:
    """Positions of equal values, rising, where there are two or more; by their first position."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    if len(values) == 0:
        starts = np.empty(0, np.int64)
    ends = np.append(starts[1:], len(values))
    several = ends - starts > 1
    starts, ends = starts[several], ends[several]
    rising = np.argsort(order[starts])

    def each() -> Iterator[list[int]]:
        for group in rising:
            yield order[starts[group] : ends[group]].tolist()

    return each


def _first(groups: Iterator[list[int]], most: int) -> list[list[int]]:
    return [rows for _, rows in zip(range(most), groups, strict=False)]


def _hash(value: Any) -> int:
    return int.from_bytes(hashlib.sha256(canonical_json(value)).digest()[:8], "big")
