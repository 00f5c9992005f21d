# SPDX-License-Identifier: Apache-2.0
"""What the data is like: counts for the report, and warnings that a reader should act on."""

import hashlib
from collections import Counter
from typing import Any

from r1reward_api.canonical import canonical_json
from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.schema import BadReason
from r1reward_trainer.data.split import ImageHash

_EXAMPLES = 10


class Quality:
    """Collects figures over the rows as they were read, before any answer was moved."""

    def __init__(self) -> None:
        self._rows = 0
        self._sources: Counter[str] = Counter()
        self._gold: Counter[int] = Counter()
        self._bad: Counter[BadReason] = Counter()
        self._left_out: Counter[str] = Counter()
        self._ids: Counter[bytes] = Counter()
        self._repeated_ids: list[str] = []
        self._contents: Counter[bytes] = Counter()

    @property
    def rows(self) -> int:
        """Good rows so far."""
        return self._rows

    @property
    def bad_rows(self) -> int:
        """Bad rows so far."""
        return self._bad.total()

    def bad_reasons(self) -> dict[str, int]:
        """Bad rows by reason, the most frequent first."""
        return {reason.value: count for reason, count in self._bad.most_common()}

    def note_bad(self, reason: BadReason) -> None:
        """Counts a bad row."""
        self._bad[reason] += 1

    def note_left_out(self, why: str) -> None:
        """Counts a record that is in order but holds no preference."""
        self._left_out[why] += 1

    def note(self, row: Row, images: tuple[ImageHash, ...]) -> None:
        """Counts a good row."""
        self._rows += 1
        self._sources[row.source] += 1
        self._gold[row.gold] += 1
        identity = hashlib.sha256(row.id.encode()).digest()[:16]
        self._ids[identity] += 1
        if self._ids[identity] == 2 and len(self._repeated_ids) < _EXAMPLES:
            self._repeated_ids.append(row.id)
        self._contents[_content(row, images)] += 1

    def report(self, train: int, heldout: int, images: int) -> dict[str, Any]:
        """The figures with those of the split.

        Args:
            train, heldout: rows of either side.
            images: different images.
        """
        return {"train": train, "heldout": heldout, "images": images, **self.figures()}

    def figures(self) -> dict[str, Any]:
        """All that was counted, as JSON values."""
        repeated_ids = sum(count - 1 for count in self._ids.values())
        repeated_contents = sum(count - 1 for count in self._contents.values())
        one_label = self._rows > 1 and len(self._gold) == 1
        warnings = []
        if one_label:
            warnings.append(
                f"gold is {next(iter(self._gold))} in every row as read; the order of the answers "
                "was balanced, but check that gold was not filled in by default"
            )
        if repeated_ids:
            warnings.append(f"{repeated_ids} rows repeat the id of another row")
        if repeated_contents:
            warnings.append(f"{repeated_contents} rows repeat question, answers and images")
        return {
            "rows": self._rows,
            "badRows": self.bad_rows,
            "badReasons": self.bad_reasons(),
            "leftOut": dict(self._left_out.most_common()),
            "sources": dict(self._sources.most_common()),
            "goldAsRead": {"1": self._gold[1], "2": self._gold[2]},
            "allOneLabel": one_label,
            "repeatedIds": repeated_ids,
            "repeatedIdExamples": self._repeated_ids,
            "repeatedContents": repeated_contents,
            "warnings": warnings,
        }


def _content(row: Row, images: tuple[ImageHash, ...]) -> bytes:
    """The same for two rows that ask the same, in whichever order the answers stand."""
    answers = sorted((row.answer1, row.answer2))
    value = [row.question, *answers, *(image.hex() for image in images)]
    return hashlib.sha256(canonical_json(value)).digest()[:16]
