# SPDX-License-Identifier: Apache-2.0
"""Figures of a judge from its verdicts.

A judge that always says 1 scores 100 % where the better answer always stands first, which is
how the paper's benchmarks are run (R1-Reward, section 5). So every row is asked in both
orders, accuracy is the mean over both, and the bias is reported beside it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from r1reward_trainer.evaluation.predictions import GREEDY, Judgements
from r1reward_trainer.evaluation.probability import row_log_odds
from r1reward_trainer.method.voting import any_correct, majority


def accuracy_by_row(judged: Judgements, sample: int = GREEDY) -> NDArray[np.float64]:
    """[rows]: share of the two orders in which the verdict is right (0, ½ or 1)."""
    return judged.correct[:, :, sample].mean(axis=1)


def both_right_by_row(judged: Judgements) -> NDArray[np.float64]:
    """[rows]: 1 where the greedy verdict is right in both orders, else 0."""
    return judged.correct[:, :, GREEDY].min(axis=1).astype(np.float64)


def accuracy_by_slot(judged: Judgements) -> tuple[float, float]:
    """Greedy accuracy where the better answer stands first, and where it stands second.

    The first is the paper's protocol. Their difference is the position bias.
    """
    correct = judged.correct[:, :, GREEDY]
    first = judged.gold_by_order == 1
    return float(correct[first].mean()), float(correct[~first].mean())


def says_first(judged: Judgements) -> float:
    """P(says 1): share of 1 among the greedy verdicts there are; ½ is unbiased.

    NaN without any verdict.
    """
    verdicts = judged.verdicts[:, :, GREEDY]
    valid = verdicts[verdicts > 0]
    return float((valid == 1).mean()) if valid.size else float("nan")


def agreement_by_row(judged: Judgements) -> NDArray[np.float64]:
    """[rows]: 1 where both orders end with the same answer chosen, else 0.

    Both verdicts must be there and, as the answers have changed places, differ.
    """
    given, swapped = judged.verdicts[:, 0, GREEDY], judged.verdicts[:, 1, GREEDY]
    return ((given > 0) & (swapped == 3 - given)).astype(np.float64)


def valid_by_row(judged: Judgements) -> NDArray[np.float64]:
    """[rows]: share of the two greedy answers that have a verdict."""
    return (judged.verdicts[:, :, GREEDY] > 0).mean(axis=1)


def margin_by_row(judged: Judgements) -> NDArray[np.float64]:
    """[rows]: log-odds of the better answer, mean over both orders, before calibration."""
    log_odds = row_log_odds(judged.log_odds[:, :, GREEDY])
    return np.where(judged.gold == 1, log_odds, -log_odds)


def seeded_order(judged: Judgements, seed: int) -> float:
    """Greedy accuracy where each row is asked in one order only, drawn by seed: what others
    report as random order. Its mean over seeds is that of both orders."""
    drawn = np.random.default_rng(seed).integers(0, 2, size=len(judged.gold))
    return float(judged.correct[np.arange(len(drawn)), drawn, GREEDY].mean())


def truncated_rate(judged: Judgements) -> float:
    """Share of the greedy answers that were cut at the longest answer allowed."""
    return float(judged.truncated[:, :, GREEDY].mean())


def response_lengths(judged: Judgements) -> tuple[float, float, float]:
    """Mean, median and 95th percentile of the greedy answers' tokens."""
    tokens = judged.tokens[:, :, GREEDY]
    return float(tokens.mean()), float(np.median(tokens)), float(np.percentile(tokens, 95))


def voting_by_row(judged: Judgements, k: int) -> NDArray[np.float64]:
    """[rows]: share of the two orders in which the majority of the first k votes is right.

    Answers without a verdict do not vote; a tie is wrong.

    Raises:
        ValueError: with fewer than k votes.
    """
    return _by_prompt(judged, k, lambda votes, gold: majority(votes) == gold)


def tied_share(judged: Judgements, k: int) -> float:
    """Share of the prompts whose first k votes are tied or all without a verdict: voting counts
    them as wrong."""
    return float(_by_prompt(judged, k, lambda votes, _: majority(votes) is None).mean())


def any_by_row(judged: Judgements, k: int) -> NDArray[np.float64]:
    """[rows]: share of the two orders in which any of the first k votes is right.

    Raises:
        ValueError: with fewer than k votes.
    """
    return _by_prompt(judged, k, any_correct)


def _by_prompt(
    judged: Judgements, k: int, right: Callable[[list[int | None], int], bool]
) -> NDArray[np.float64]:
    votes = judged.verdicts[:, :, 1 : k + 1]
    if votes.shape[2] < k:
        raise ValueError(f"votes@{k} needs {k} votes, there are {votes.shape[2]}")
    gold = judged.gold_by_order
    rows = [
        [
            right([int(v) or None for v in votes[row, order]], int(gold[row, order]))
            for order in range(votes.shape[1])
        ]
        for row in range(votes.shape[0])
    ]
    return np.array(rows, dtype=np.float64).mean(axis=1)


def chance_of_any(k: int) -> float:
    """What any@K is for a coin: it says little about a judge when K is large."""
    return 1 - 0.5**k
