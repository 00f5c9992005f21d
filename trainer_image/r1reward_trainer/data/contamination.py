# SPDX-License-Identifier: Apache-2.0
"""Training rows that evaluation would know again: by what their images look like, or by their text.

The index holds about a kilobyte for each row that is to be judged and four for each of their
images, whatever the size of the training data, whose rows pass one by one.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from r1reward_trainer.data.pictures import Pictures
from r1reward_trainer.data.rows import Row, SetRow
from r1reward_trainer.data.shingles import Hashes, shingles
from r1reward_trainer.data.split import image_hash

HELDOUT = "heldout"
"""What the held-out rows are called among the sets."""
SHARED = 0.5
"""Share of a judged row's text that a training row must hold to count as its copy."""
_SKETCH = 128
"""Shingles that stand for a judged row: its smallest hashes, a random sample (Broder, 1997)."""
_FEWEST = 8
"""With fewer shingles a text is too short to be known by: `yes`, `a cat`."""
_COMMON, _COMMON_SHARE = 50, 0.1
"""A shingle that stands beside more different images of a set than this, or than this share of
them, belongs to the questions' wording."""
_EXAMPLES = 10


@dataclass(frozen=True)
class Match:
    """A training row and a judged row that it would give away.

    Attributes:
        set: the judged row's set.
        item: the judged row's id, the benchmark's own where it has one.
        kind: what they share.
        likeness: of an image the correlation of the two, of a text the share of the judged row's
            that the training row holds; from 0 to 1.
        rows: numbers of all judged rows of the set that it would give away, in no order: several
            may be about one image.
    """

    set: str
    item: str
    kind: Literal["image", "text"]
    likeness: float
    rows: tuple[int, ...]

    def figures(self) -> dict[str, Any]:
        """For the list of all matches."""
        return {
            "set": self.set,
            "item": self.item,
            "shared": self.kind,
            "likeness": self.likeness,
        }


class Screen:
    """Knows the rows that are to be judged; says which training rows they share something with.

    First all `add`, then any number of `check`.
    """

    def __init__(self) -> None:
        self._sets: list[str] = []
        self._of_set: array[int] = array("H")
        self._items: list[str] = []
        self._pictures: array[int] = array("Q")
        self._images = Pictures()
        self._hashes: array[int] = array("Q")
        self._owners: array[int] = array("I")
        self._index: _Index | None = None

    def add(self, name: str, row: Row) -> None:
        """Takes in a row of a set."""
        if name not in self._sets:
            self._sets.append(name)
        owner = len(self._items)
        self._items.append(row.item if isinstance(row, SetRow) else row.id)
        self._of_set.append(self._sets.index(name))
        self._pictures.append(_pictures(row, owner))
        for image in row.images:
            self._images.add(image, owner)
        sketch = shingles((row.question, row.answer1, row.answer2))[:_SKETCH]
        self._hashes.extend(sketch.tolist())
        self._owners.extend([owner] * len(sketch))

    def check(self, row: Row) -> list[Match]:
        """For each set that the row would give away, its closest row there."""
        index = self._index = self._index or self._indexed()
        best: dict[int, tuple[float, int, Literal["image", "text"]]] = {}
        given_away: defaultdict[int, set[int]] = defaultdict(set)

        def note(found: Iterable[tuple[int, float]], kind: Literal["image", "text"]) -> None:
            for owner, value in found:
                of = self._of_set[owner]
                given_away[of].add(owner)
                if of not in best or value > best[of][0]:
                    best[of] = (value, owner, kind)

        for image in row.images:
            note(self._images.like(image), "image")
        note(index.sharing(shingles((row.question, row.answer1, row.answer2))), "text")
        return [
            Match(self._sets[of], self._items[owner], kind, round(value, 3), tuple(given_away[of]))
            for of, (value, owner, kind) in sorted(best.items())
        ]

    def _indexed(self) -> "_Index":
        return _Index(
            np.array(self._hashes, dtype=np.uint64),
            np.array(self._owners, dtype=np.int64),
            np.array(self._of_set, dtype=np.int64),
            np.array(self._pictures, dtype=np.uint64),
        )


def _pictures(row: Row, owner: int) -> int:
    """The same for rows about the same images; a row without images is like no other."""
    images = b"".join(map(image_hash, row.images)) or owner.to_bytes(8, "big")
    return int.from_bytes(image_hash(images)[:8], "big")


def _wording(hashes: Hashes, pictures: Hashes, images: int) -> Hashes:
    """Of a set's shingles those that stand beside too many different images.

    Args:
        hashes: of shingles.
        pictures: of the same length: the images that each stands beside.
        images: how many different ones the set has.
    """
    order = np.lexsort((pictures, hashes))
    hashes, pictures = hashes[order], pictures[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (pictures[1:] != pictures[:-1])
    found, counts = np.unique(hashes[new], return_counts=True)
    return found[counts > min(_COMMON, max(1, int(images * _COMMON_SHARE)))]


class _Index:
    """Hashes of judged rows' texts as arrays, with the row that each belongs to."""

    def __init__(
        self,
        hashes: Hashes,
        owners: np.ndarray,
        of_set: np.ndarray,
        pictures: Hashes,
    ) -> None:
        rare = np.ones(len(hashes), dtype=bool)
        for one in np.unique(of_set):
            own = np.flatnonzero(of_set[owners] == one)
            images = len(np.unique(pictures[of_set == one]))
            wording = _wording(hashes[own], pictures[owners[own]], images)
            rare[own] = ~np.isin(hashes[own], wording)
        hashes, owners = hashes[rare], owners[rare]
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]
        self._sizes = np.bincount(self._owners, minlength=len(of_set))

    def sharing(self, text: Hashes) -> list[tuple[int, float]]:
        """Rows of whose text the given one holds enough, and how much."""
        first = np.searchsorted(self._hashes, text, "left")
        last = np.searchsorted(self._hashes, text, "right")
        hit = np.flatnonzero(last > first)
        if len(hit) == 0:
            return []
        ranges = zip(first[hit], last[hit], strict=True)
        owners, shared = np.unique(
            np.concatenate([self._owners[start:end] for start, end in ranges]), return_counts=True
        )
        sizes = self._sizes[owners]
        share = shared / sizes
        enough = (sizes >= _FEWEST) & (share >= SHARED)
        return list(zip(owners[enough].tolist(), share[enough].tolist(), strict=True))


def contamination_warnings(
    figures: dict[str, Any], removed: bool, rows: str = "training rows"
) -> list[str]:
    """A sentence for each set that training rows would give away.

    Args:
        figures: of Findings.
        removed: whether the rows were left out.
        rows: what they are called.
    """
    done = "were left out" if removed else "stay: see data.contamination"
    return [
        f"{found['givenAway']} of {found['rows']} rows of {name} share an image or a text with "
        f"{found['byImage'] + found['byText']} {rows}, which {done}"
        for name, found in figures["sets"].items()
        if found["givenAway"]
    ]


class Findings:
    """Counts matches for the report.

    Args:
        sets: names of all sets, with their rows.
        noted: under which name an entry has the id of what is noted.
    """

    def __init__(self, sets: dict[str, int], noted: str = "row") -> None:
        self._sets = sets
        self._noted = noted
        self._rows: Counter[tuple[str, str]] = Counter()
        self._given_away: dict[str, set[int]] = {name: set() for name in sets}
        self._examples: dict[str, list[dict[str, Any]]] = {name: [] for name in sets}
        self.rows = 0
        """Training rows with a match."""

    def note(self, row: Row, matches: Sequence[Match]) -> list[dict[str, Any]]:
        """Counts a training row's matches and returns them as JSON values."""
        self.rows += bool(matches)
        found = []
        for match in matches:
            self._rows[match.set, match.kind] += 1
            self._given_away[match.set].update(match.rows)
            entry = {self._noted: row.id, **match.figures()}
            found.append(entry)
            if len(self._examples[match.set]) < _EXAMPLES:
                self._examples[match.set].append(entry)
        return found

    def figures(self) -> dict[str, Any]:
        """By set: its rows, those of them that training rows would give away, and the training
        rows that do so by an image or by a text."""
        return {
            "rows": self.rows,
            "sets": {
                name: {
                    "rows": rows,
                    "givenAway": len(self._given_away[name]),
                    "byImage": self._rows[name, "image"],
                    "byText": self._rows[name, "text"],
                    "examples": self._examples[name],
                }
                for name, rows in self._sets.items()
            },
        }
