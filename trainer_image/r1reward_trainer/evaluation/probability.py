# SPDX-License-Identifier: Apache-2.0
"""How sure a judge is, and whether it is as often right as it is sure.

The verdict is one token, a digit behind `<answer>`, so the model's own probabilities of both
digits there say how close the choice was. Their log-odds are averaged over both answer orders,
in which an additive preference for a place cancels, and divided by a temperature (Guo et al.,
"On Calibration of Modern Neural Networks", 2017), which one number sets, so that few rows
suffice. The temperature of a row is fitted on other rows than itself.

"Answer 1" and "answer 2" are arbitrary names, so nothing here depends on which of the two is the
better one: figures are over the margin, the log-odds of the better answer.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

from r1reward_trainer.method.verdict import ANSWER_OPEN

FOLDS = 5
"""Parts of the rows; the temperature of each is fitted on the others."""
BINS = 10
"""Of confidence, equally wide, from 0.5 to 1."""

_TEMPERATURES = (0.1, 1000.0)
"""Between which a temperature is looked for: the last one says that verdicts tell nothing."""


def verdict_log_odds(
    token_ids: Sequence[int],
    rivals: Mapping[int, Sequence[float]],
    decode: Callable[[Sequence[int]], str],
) -> float | None:
    """ln P("1") − ln P("2") at the digit behind `<answer>`, in a response that has a verdict.

    Args:
        token_ids: of the response.
        rivals: by place, where a digit was sampled, the log-probs of "1" and "2".
        decode: token ids to text.

    Returns:
        None where the digit is no token of its own.
    """
    for place in sorted(rivals, reverse=True):
        before = token_ids[max(0, place - len(ANSWER_OPEN)) : place]
        if decode(before).endswith(ANSWER_OPEN):
            one, two = rivals[place]
            return one - two
    return None


def row_log_odds(by_order: ArrayLike | Sequence[float | None]) -> NDArray[np.float64]:
    """[...]: log-odds that the row's answer 1 is better, before calibration.

    Args:
        by_order: [..., 2], `verdict_log_odds` in the row's own order and in the swapped one.
            NaN or None where there is no verdict, which counts as even odds.
    """
    known = np.nan_to_num(np.asarray(by_order, dtype=np.float64))
    return (known[..., 0] - known[..., 1]) / 2


def probability(log_odds: ArrayLike, temperature: ArrayLike) -> NDArray[np.float64]:
    """[...]: the calibrated probability that answer 1 is better.

    Args:
        log_odds: [...], of `row_log_odds`, or those of one order.
        temperature: of `fit_temperature`.
    """
    return expit(np.asarray(log_odds) / np.asarray(temperature))


def fit_temperature(margins: NDArray[np.float64]) -> float:
    """The temperature at which the probabilities of the better answers are likeliest.

    The better answer's target is (n + 1) / (n + 2) instead of 1 (Platt, 1999), so that a judge
    that is right on all of n rows is not taken to be always right.

    Args:
        margins: [rows], log-odds of the better answer.

    Returns:
        1 where no margin says anything: without rows, or with even odds alone.
    """
    rows = len(margins)
    if not margins.any():
        return 1.0
    target = (rows + 1) / (rows + 2)

    def loss(log_temperature: float) -> float:
        scaled = margins / math.exp(log_temperature)
        return -float(np.mean(target * log_expit(scaled) + (1 - target) * log_expit(-scaled)))

    low, high = (math.log(t) for t in _TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def cross_fitted(margins: NDArray[np.float64], row_ids: Sequence[str]) -> NDArray[np.float64]:
    """[rows]: for each row, the temperature fitted on the rows of the other folds.

    Rows of one id, such as the pairs of one question, are in one fold.

    Args:
        margins: [rows], log-odds of the better answer.
        row_ids: [rows].
    """
    fold = np.array([_fold(row_id) for row_id in row_ids])
    by_fold = np.array([fit_temperature(margins[fold != f]) for f in range(FOLDS)])
    return by_fold[fold]


def _fold(row_id: str) -> int:
    return int.from_bytes(hashlib.sha256(row_id.encode()).digest()[:8], "big") % FOLDS


@dataclass(frozen=True)
class Bin:
    """Rows of nearly the same confidence.

    Attributes:
        low, high: of the confidence, the upper end not included but for 1.
        rows: how many.
        confidence: their mean confidence.
        accuracy: share of them that is right; even odds are half right.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def brier_by_row(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """[rows]: squared distance of the better answer's probability from 1; ¼ for even odds.

    Args:
        margins: [rows], calibrated log-odds of the better answer.
    """
    return expit(-margins) ** 2


def reliability(margins: NDArray[np.float64]) -> list[Bin]:
    """Confidence against accuracy in BINS bins; those without rows are left out.

    Args:
        margins: [rows], calibrated log-odds of the better answer. Confidence is the probability
            of the likelier one.
    """
    confidence = expit(np.abs(margins))
    right = (np.sign(margins) + 1) / 2
    place = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return [
        Bin(
            low=0.5 + b / (2 * BINS),
            high=0.5 + (b + 1) / (2 * BINS),
            rows=int((place == b).sum()),
            confidence=float(confidence[place == b].mean()),
            accuracy=float(right[place == b].mean()),
        )
        for b in range(BINS)
        if (place == b).any()
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """ECE: mean distance of confidence and accuracy over the bins, by their rows."""
    rows = sum(b.rows for b in bins)
    return sum(b.rows * abs(b.confidence - b.accuracy) for b in bins) / rows
