# SPDX-License-Identifier: Apache-2.0
"""Results of shards as files between the asking and the writing of the outputs."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from r1reward_trainer.annotation.ask import Result
from r1reward_trainer.annotation.choice import Shard
from r1reward_trainer.data.rows import AnnotatedRow, Row, RowWriter


def write_results(folder: Path, shard: Shard, results: Sequence[Result]) -> None:
    """Writes a shard's results, whole or not at all."""
    path = folder / f"{shard.name}.jsonl"
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(asdict(result)) + "\n" for result in results))
    part.replace(path)


def read_results(folder: Path, shards: Sequence[Shard]) -> Iterator[Result]:
    """All results in the order of the rows."""
    for shard in shards:
        with (folder / f"{shard.name}.jsonl").open() as file:
            for line in file:
                yield Result(**json.loads(line))


@dataclass
class Tally:
    """Figures over results.

    Attributes:
        attempts: rows by the attempt that was right, 0 for never.
        asked: answers of the teacher.
        refused: refusals among them.
        faults: tries that failed and were made again.
    """

    attempts: Counter[int] = field(default_factory=Counter)
    asked: int = 0
    refused: int = 0
    faults: int = 0

    def note(self, result: Result) -> None:
        """Counts a result."""
        self.attempts[result.attempts] += 1
        self.asked += result.asked
        self.refused += result.refused
        self.faults += result.faults

    def add(self, other: "Tally") -> None:
        """Counts what another has counted."""
        self.attempts += other.attempts
        self.asked += other.asked
        self.refused += other.refused
        self.faults += other.faults

    @property
    def rows(self) -> int:
        """Rows counted."""
        return self.attempts.total()

    @property
    def accepted(self) -> int:
        """Rows with a right response."""
        return self.rows - self.attempts[0]

    @property
    def hard(self) -> int:
        """Rows that were not right at the first attempt."""
        return self.rows - self.attempts[1]

    def metrics(self) -> dict[str, float]:
        """For progress."""
        return {
            "accepted": float(self.accepted),
            "hard": float(self.hard),
            "asked": float(self.asked),
            "refused": float(self.refused),
            "faults": float(self.faults),
        }

    def summary(self) -> dict[str, str]:
        """For the manifest. `attempts` reads `1:90 2:7 3:2 never:1`."""
        right = [f"{n}:{count}" for n, count in sorted(self.attempts.items()) if n]
        never = [f"never:{self.attempts[0]}"] if self.attempts[0] else []
        return {
            "annotatedRows": str(self.rows),
            "accepted": str(self.accepted),
            "hard": str(self.hard),
            "attempts": " ".join(right + never),
            "teacherAnswers": str(self.asked),
            "teacherRefusals": str(self.refused),
            "teacherFaults": str(self.faults),
        }


def write_outputs(
    rows: Sequence[Row], results: Iterator[Result], teacher: str, sft: Path, rl: Path
) -> tuple[int, int]:
    """Writes the accepted rows to `sft` and the hard ones to `rl` (paper, section 3.2).

    Returns:
        Rows of either.
    """
    with RowWriter(sft, AnnotatedRow) as accepted, RowWriter(rl, AnnotatedRow) as hard:
        for result in results:
            row = _annotated(rows[result.row], result, teacher)
            if result.attempts > 0:
                accepted.write(row)
            if result.attempts != 1:
                hard.write(row)
    return accepted.rows, hard.rows


def _annotated(row: Row, result: Result, teacher: str) -> AnnotatedRow:
    return AnnotatedRow(
        **{name: getattr(row, name) for name in Row.__slots__},
        response=result.response,
        attempts=result.attempts,
        teacher=teacher,
        temperature=result.temperature,
    )
