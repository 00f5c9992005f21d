# SPDX-License-Identifier: Apache-2.0
"""Which answer stands first (paper, section 3.1: gold 1 and 2 equally often)."""

import hashlib
from dataclasses import replace
from typing import TypeVar

from r1reward_trainer.data.rows import Row

RowT = TypeVar("RowT", bound=Row)


def balanced_gold(seed: int, split: str, position: int) -> int:
    """The gold digit that the row at a position of a split shall have.

    Of each two neighbours one gets 1 and the other 2, in seeded random order: the split is
    balanced up to one row, and no position can be guessed from the row's content.
    """
    coin = hashlib.sha256(f"order:{seed}:{split}:{position // 2}".encode()).digest()[0] & 1
    return 1 + (coin ^ (position & 1))


def with_gold(row: RowT, gold: int) -> RowT:
    """The row with the better answer in the place that `gold` names."""
    if row.gold == gold:
        return row
    return replace(row, answer1=row.answer2, answer2=row.answer1, gold=gold)
