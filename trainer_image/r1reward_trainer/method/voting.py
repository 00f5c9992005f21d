# SPDX-License-Identifier: Apache-2.0
"""Voting@K over several verdicts on one prompt (paper, section 5)."""

from collections.abc import Sequence
from math import fsum


def majority(votes: Sequence[int | None]) -> int | None:
    """The verdict with most votes. Invalid votes (None) are dropped; a tie is None, hence wrong."""
    ones, twos = votes.count(1), votes.count(2)
    if ones == twos:
        return None
    return 1 if ones > twos else 2


def votes_needed(votes: Sequence[int | None], ks: Sequence[int]) -> int:
    """How many votes to ask for next, so that the majority of the first k is known for each k.

    The fewest that could settle it, so that no vote is asked for that cannot change a majority.
    What the better answer is plays no part: it would favour the judge.

    Args:
        votes: those there are, in order.
        ks: numbers of votes.

    Returns:
        0 when every majority is settled.
    """
    return max((_needed(votes, k) for k in ks), default=0)


def _needed(votes: Sequence[int | None], k: int) -> int:
    rest = max(0, k - len(votes))
    short = rest - abs(votes.count(1) - votes.count(2))
    return 0 if rest == 0 or short < 0 else short // 2 + 1


def weighted_lead(votes: Sequence[int | None], weights: Sequence[float]) -> float:
    """By how much the votes for 1 outweigh those for 2; 0 is a tie.

    Args:
        votes: verdicts; invalid ones (None) are dropped.
        weights: of each vote: the calibrated probability of its verdict.
    """
    # Exactly: equal votes that were rounded one after another would decide a tie.
    return fsum((3 - 2 * v) * w for v, w in zip(votes, weights, strict=True) if v is not None)
