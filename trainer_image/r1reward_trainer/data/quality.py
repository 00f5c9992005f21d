# SPDX-License-Identifier: Apache-2.0
"""What the data is like: counts for the report, and warnings that a reader should act on."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from r1reward_trainer.data.distribution import Distribution
from r1reward_trainer.data.duplicates import Duplicates
from r1reward_trainer.data.perceptual import image_size
from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.schema import BadReason
from r1reward_trainer.data.split import ImageHash

_SHOWN_SOURCES = 100

CountTokens = Callable[[str], int]


class Quality:
    """Collects figures over the rows as they were read, before any answer was moved.

    Args:
        count_tokens: of a text, as the model's tokenizer counts; None: no lengths in tokens.
    """

    def __init__(self, count_tokens: CountTokens | None = None) -> None:
        self._count_tokens = count_tokens
        self._rows = 0
        self._sources: Counter[str] = Counter()
        self._gold: Counter[int] = Counter()
        self._bad: Counter[BadReason] = Counter()
        self._left_out: Counter[str] = Counter()
        self._longer_is_better = 0
        self._same_answers = 0
        self._fewer_frames = 0
        self._duplicates = Duplicates()
        self._sizes = {name: Distribution() for name in ("width", "height", "pixels", "perRow")}
        self._characters = {name: Distribution() for name in ("question", "answer")}
        self._tokens = {name: Distribution() for name in ("question", "answer")}

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

    def note(self, row: Row, images: tuple[ImageHash, ...], *, fewer_frames: bool = False) -> None:
        """Counts a good row.

        Args:
            row: as it was read.
            images: hashes of its images.
            fewer_frames: it has fewer frames of its video than could be taken.
        """
        self._fewer_frames += fewer_frames
        self._rows += 1
        self._sources[row.source] += 1
        self._gold[row.gold] += 1
        self._duplicates.note(row, images)
        better, worse = (row.answer1, row.answer2)[:: 1 if row.gold == 1 else -1]
        self._longer_is_better += len(better) > len(worse)
        self._same_answers += better == worse
        self._note_sizes(row)
        for name, text in (
            ("question", row.question),
            ("answer", row.answer1),
            ("answer", row.answer2),
        ):
            self._characters[name].add(len(text))
            if self._count_tokens is not None:
                self._tokens[name].add(self._count_tokens(text))

    def _note_sizes(self, row: Row) -> None:
        self._sizes["perRow"].add(len(row.images))
        for image in row.images:
            width, height = image_size(image)
            self._sizes["width"].add(width)
            self._sizes["height"].add(height)
            self._sizes["pixels"].add(width * height)

    def report(self, train: int, heldout: int, images: int) -> dict[str, Any]:
        """The figures with those of the split.

        Args:
            train, heldout: rows of either side.
            images: different images.
        """
        return {"train": train, "heldout": heldout, "images": images, **self.figures()}

    def figures(self) -> dict[str, Any]:
        """All that was counted, as JSON values."""
        repeated_ids, examples = self._duplicates.repeated_ids()
        duplicates = self._duplicates.figures()
        one_label = self._rows > 1 and len(self._gold) == 1
        figures = {
            "rows": self._rows,
            "badRows": self.bad_rows,
            "badReasons": self.bad_reasons(),
            "leftOut": dict(self._left_out.most_common()),
            "sources": dict(self._sources.most_common(_SHOWN_SOURCES)),
            "goldAsRead": {"1": self._gold[1], "2": self._gold[2]},
            "allOneLabel": one_label,
            "longerIsBetter": round(self._longer_is_better / max(1, self._rows), 3),
            "sameAnswers": self._same_answers,
            "fewerFrames": self._fewer_frames,
            "imageSizes": _quantiles(self._sizes),
            "characters": _quantiles(self._characters),
            "repeatedIds": repeated_ids,
            "repeatedIdExamples": examples,
            "duplicates": duplicates,
        }
        if self._count_tokens is not None:
            figures["tokens"] = _quantiles(self._tokens)
        return {**figures, "warnings": _warnings(figures, self._gold)}


def _quantiles(distributions: dict[str, Distribution]) -> dict[str, dict[str, float]]:
    return {name: found.figures() for name, found in distributions.items()}


def frame_warnings(figures: dict[str, Any], rows: str = "rows") -> list[str]:
    """A sentence where videos had more frames than a row may have images.

    Args:
        figures: of Quality.
        rows: what they are called.
    """
    if not figures["fewerFrames"]:
        return []
    return [
        f"{figures['fewerFrames']} {rows} are judged by fewer frames than their videos have; raise "
        "the runtime's serving.imagesPerPrompt (r1 data validate: --max-images), up to 32"
    ]


def _warnings(figures: dict[str, Any], gold: Counter[int]) -> list[str]:
    warnings = []
    if figures["allOneLabel"]:
        warnings.append(
            f"gold is {next(iter(gold))} in every row as read, as it is in files of chosen and "
            "rejected answers; the order of the answers is balanced. If the files have a gold of "
            "their own, check it"
        )
    if figures["sameAnswers"]:
        warnings.append(
            f"{figures['sameAnswers']} rows have the same text as both answers, of which none is "
            "better; check the columns, or leave them out"
        )
    if figures["repeatedIds"]:
        warnings.append(f"{figures['repeatedIds']} rows repeat the id of another row")
    warnings += frame_warnings(figures)
    duplicates = figures["duplicates"]
    if again := duplicates["exact"] + duplicates["swapped"]:
        warnings.append(f"{again} rows repeat question, answers and images of another row")
    if duplicates["conflicting"]:
        warnings.append(
            f"{duplicates['conflicting']} rows say the contrary of another row with the same "
            "question, answers and images"
        )
    return warnings
