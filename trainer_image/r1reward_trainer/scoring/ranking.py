# SPDX-License-Identifier: Apache-2.0
"""From preferences between two answers to a ranking of all of them, and how far it can be
trusted.

Strengths are those of Bradley and Terry ("Rank Analysis of Incomplete Block Designs", 1952):
P(i is better than j) = σ(s_i − s_j), fitted to probabilities instead of counts. A judge need not
be of one mind, so what no ranking can express is reported beside it: cycles, and Kendall and
Babington Smith's coefficient of consistence ("On the Method of Paired Comparisons", 1940).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit

PRIOR = 0.02
"""Every two answers count as having drawn so many comparisons besides: strengths stay finite
whatever the preferences are, and answers that were never compared are near each other."""

_EVEN = 1e-9
"""Probabilities and strengths that differ by less are equal: rounding must rank nobody."""
_STEPS = 100


@dataclass(frozen=True)
class Preference:
    """What is known of two answers.

    Attributes:
        first, second: their numbers, from 0.
        probability: that the first is the better one, 0 to 1.
    """

    first: int
    second: int
    probability: float


@dataclass(frozen=True)
class Ranking:
    """The order of n answers.

    Attributes:
        strengths: [n], natural log-odds; their mean is 0.
        win_rates: [n], probability that the answer is better than another one of the group; their
            mean is ½.
        ranks: [n], from 1, which is the best; equals share a rank, and the next ones are left out.
        cycles: one shortest cycle, each member better than the next and the last better than the
            first, for each set of answers that no order can put right.
        cyclic_triads: number of cycles of three.
        consistence: 1 where there is none, 0 where there are as many as there can be.
    """

    strengths: tuple[float, ...]
    win_rates: tuple[float, ...]
    ranks: tuple[int, ...]
    cycles: tuple[tuple[int, ...], ...]
    cyclic_triads: int
    consistence: float


def round_robin(answers: int) -> list[tuple[int, int]]:
    """Every two of so many answers, once."""
    return list(combinations(range(answers), 2))


def rank(answers: int, preferences: Iterable[Preference]) -> Ranking:
    """Ranks so many answers.

    Args:
        answers: how many.
        preferences: of any of them, in any number and order.

    Raises:
        ValueError: for a preference that is none of these answers', or no probability.
    """
    wins = _wins(answers, preferences)
    strengths = bradley_terry(wins)
    beats = wins > wins.T + _EVEN
    triads = round(np.trace(np.linalg.matrix_power(beats.astype(np.int64), 3)) / 3)
    return Ranking(
        strengths=tuple(strengths.tolist()),
        win_rates=tuple(_win_rates(strengths).tolist()),
        ranks=_ranks(strengths),
        cycles=tuple(_cycles(beats)),
        cyclic_triads=triads,
        consistence=_consistence(answers, triads),
    )


def bradley_terry(wins: NDArray[np.float64], prior: float = PRIOR) -> NDArray[np.float64]:
    """[n]: the likeliest strengths, mean 0, by Newton's method on a strictly concave likelihood.

    Args:
        wins: [n, n], how often each answer (row) was better than each other (column).
        prior: drawn comparisons of every two answers, above 0.
    """
    n = len(wins)
    weights = wins + prior / 2
    np.fill_diagonal(weights, 0.0)
    met = weights + weights.T
    strengths = np.zeros(n)
    for _ in range(_STEPS):
        expected = expit(strengths[:, None] - strengths[None, :])
        gradient = (weights - met * expected).sum(axis=1)
        if np.abs(gradient).max(initial=0.0) < 1e-10:
            break
        curvature = met * expected * (1 - expected)
        # A step along equal strengths changes nothing: 1/n keeps the matrix invertible there.
        hessian = np.diag(curvature.sum(axis=1)) - curvature + 1 / n
        step = np.linalg.solve(hessian, gradient)
        before, scale = _likelihood(weights, strengths), 1.0
        while _likelihood(weights, strengths + scale * step) < before and scale > 1e-6:
            scale /= 2
        strengths = strengths + scale * step
    return strengths - strengths.mean() if n else strengths


def _likelihood(weights: NDArray[np.float64], strengths: NDArray[np.float64]) -> float:
    return float((weights * log_expit(strengths[:, None] - strengths[None, :])).sum())


def _wins(answers: int, preferences: Iterable[Preference]) -> NDArray[np.float64]:
    wins = np.zeros((answers, answers))
    for one in preferences:
        i, j = one.first, one.second
        if not (0 <= i < answers and 0 <= j < answers and i != j):
            raise ValueError(f"a preference of {i} and {j} among {answers} answers")
        if not 0 <= one.probability <= 1:
            raise ValueError(f"{one.probability} is no probability")
        wins[i, j] += one.probability
        wins[j, i] += 1 - one.probability
    return wins


def _win_rates(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(strengths)
    if n < 2:
        return np.full(n, 0.5)
    against_all = expit(strengths[:, None] - strengths[None, :]).sum(axis=1)
    return (against_all - 0.5) / (n - 1)  # without the answer itself


def _ranks(strengths: Sequence[float] | NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(1 + sum(bool(other > own + _EVEN) for other in strengths) for own in strengths)


def _consistence(answers: int, triads: int) -> float:
    if answers < 3:
        return 1.0
    most = answers * (answers**2 - (1 if answers % 2 else 4)) / 24
    return 1 - triads / most


def _cycles(beats: NDArray[np.bool_]) -> Iterable[tuple[int, ...]]:
    count, component = connected_components(beats, connection="strong")
    for number in range(count):
        members = np.flatnonzero(component == number)
        if len(members) > 1:
            yield min((_shortest_cycle(beats, int(m)) for m in members), key=len)


def _shortest_cycle(beats: NDArray[np.bool_], start: int) -> tuple[int, ...]:
    """A shortest way from an answer that is in a cycle back to itself."""
    paths: deque[tuple[int, ...]] = deque([(start,)])
    seen = {start}
    while True:
        path = paths.popleft()
        for better_than in np.flatnonzero(beats[path[-1]]).tolist():
            if better_than == start:
                return path
            if better_than not in seen:
                seen.add(better_than)
                paths.append((*path, better_than))
