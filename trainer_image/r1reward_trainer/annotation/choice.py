# SPDX-License-Identifier: Apache-2.0
"""Which rows are annotated, and how they are cut into shards."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from r1reward_trainer.data.rows import Row
from r1reward_trainer.data.split import group_by_image, image_hash, shuffled

SHARD_ROWS = 256


@dataclass(frozen=True)
class Shard:
    """Rows that share a journal.

    Attributes:
        number: from 0.
        rows: positions in the input, rising.
    """

    number: int
    rows: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of its journal and results."""
        return f"shard-{self.number:05d}"


def choose_rows(rows: Sequence[Row], max_rows: int | None, seed: int) -> list[int]:
    """Positions of the rows to annotate, rising: all, or whole images chosen by seed.

    Images are taken while their rows fit into max_rows; the first is always taken.
    """
    if max_rows is None or max_rows >= len(rows):
        return list(range(len(rows)))
    chosen: list[int] = []
    groups = group_by_image([[image_hash(image) for image in row.images] for row in rows])
    for group in shuffled(groups, seed, "annotate"):
        if not chosen or len(chosen) + len(group.rows) <= max_rows:
            chosen += group.rows
    return sorted(chosen)


def rows_a_shard(rows: int, processes: int | None) -> int:
    """Rows of a shard such that each of the processes asked for has one."""
    return SHARD_ROWS if processes is None else max(1, min(SHARD_ROWS, -(-rows // processes)))


def cut(positions: Sequence[int], shard_rows: int = SHARD_ROWS) -> list[Shard]:
    """Shards of at most so many rows."""
    starts: Iterable[int] = range(0, len(positions), shard_rows)
    return [Shard(n, tuple(positions[s : s + shard_rows])) for n, s in enumerate(starts)]
