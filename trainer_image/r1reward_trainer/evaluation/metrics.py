# SPDX-License-Identifier: Apache-2.0
"""Figures of a judge from its verdicts.

A judge that always says 1 scores 100 % where the better answer always stands first, which is
how the paper's benchmarks are run (R1-Reward, section 5). So every row is asked in both
orders, accuracy is the mean over both, and the bias is reported beside it.
"""

import numpy as np
from numpy.typing import NDArray

from r1reward_trainer.evaluation.predictions import GREEDY, ORDERS, Judgements
from r1reward_trainer.evaluation.probability import cross_fitted, probability, row_log_odds
from r1reward_trainer.method.voting import majority, votes_needed, weighted_lead


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
        ValueError: where the majority of k votes is not known.
    """
    return (_majorities(judged, k) == judged.gold_by_order).mean(axis=1)


def tied_share(judged: Judgements, k: int) -> float:
    """Share of the prompts whose first k votes are tied, some of them having a verdict: voting
    counts them as wrong."""
    return float(((_majorities(judged, k) == 0) & _any_verdict(judged, k)).mean())


def silent_share(judged: Judgements, k: int) -> float:
    """Share of the prompts without a verdict among the first k votes: voting counts them as
    wrong."""
    return float((~_any_verdict(judged, k)).mean())


def weighted_voting_by_row(judged: Judgements, k: int) -> NDArray[np.float64]:
    """[rows]: as `voting_by_row`, but each vote counts by the calibrated probability of its
    verdict in its own order; of the votes that were asked for.

    The temperature is fitted on the single greedy answers of other rows.
    """
    leads = _weighted_leads(judged, k)
    said = np.select([leads > 0, leads < 0], [1, 2], 0)
    return (said == judged.gold_by_order).mean(axis=1)


def weighted_open_share(judged: Judgements, k: int) -> float:
    """Share of the prompts whose weighted vote could be decided otherwise by the votes that were
    not asked for, each of which weighs up to 1."""
    missing = _votes_missing(judged, k)
    return float(((missing > 0) & (np.abs(_weighted_leads(judged, k)) <= missing)).mean())


def _weighted_leads(judged: Judgements, k: int) -> NDArray[np.float64]:
    """[rows, 2]: by how much the votes for 1 outweigh those for 2, of the first k."""
    greedy = np.nan_to_num(judged.log_odds[:, :, GREEDY])
    margins = np.where(judged.gold_by_order == 1, greedy, -greedy)
    items = [item for item in judged.items for _ in ORDERS]
    temperatures = cross_fitted(margins.ravel(), items).reshape(margins.shape)
    sign = np.where(judged.verdicts == 1, 1, -1)
    by_answer = probability(np.nan_to_num(judged.log_odds) * sign, temperatures[:, :, None])
    missing = max(0, k + 1 - by_answer.shape[2])
    weights = np.pad(by_answer, ((0, 0), (0, 0), (0, missing)))[:, :, 1 : k + 1]
    leads = [
        [
            weighted_lead(_votes(judged, row, order, k), weights[row, order])
            for order in range(len(ORDERS))
        ]
        for row in range(len(judged.items))
    ]
    return np.array(leads)


def any_by_row(judged: Judgements, k: int) -> NDArray[np.float64]:
    """[rows]: share of the two orders in which any of the first k votes is right, of those that
    were asked for: a lower bound where votes were left out."""
    return _any_right(judged, k).mean(axis=1)


def any_open_share(judged: Judgements, k: int) -> float:
    """Share of the prompts in which only a vote that was not asked for could be right."""
    return float(((_votes_missing(judged, k) > 0) & ~_any_right(judged, k)).mean())


def votes_asked(judged: Judgements, k: int) -> float:
    """Mean number of the first k votes that were asked for."""
    return float(judged.drawn[:, :, 1 : k + 1].sum(axis=2).mean())


def _majorities(judged: Judgements, k: int) -> NDArray[np.int8]:
    """[rows, 2]: what the majority of the first k votes says; 0 where there is none.

    Raises:
        ValueError: where votes that were not asked for could change it.
    """
    votes = [
        [_votes(judged, row, order, k) for order in range(len(ORDERS))]
        for row in range(len(judged.items))
    ]
    missing = _votes_missing(judged, k)
    unsettled = [
        [votes_needed(v[: k - m], [k]) for v, m in zip(*pair, strict=True)]
        for pair in zip(votes, missing, strict=True)
    ]
    if np.any(unsettled):
        raise ValueError(f"votes@{k} needs {k} votes, there are {votes_asked(judged, k):g}")
    return np.array([[majority(v) or 0 for v in both] for both in votes], dtype=np.int8)


def _votes(judged: Judgements, row: int, order: int, k: int) -> list[int | None]:
    """Verdicts of the first k votes; those that were not asked for are None, as invalid ones."""
    said = [int(v) or None for v in judged.verdicts[row, order, 1 : k + 1]]
    return said + [None] * (k - len(said))


def _votes_missing(judged: Judgements, k: int) -> NDArray[np.int64]:
    """[rows, 2]: how many of the first k votes were not asked for."""
    return k - judged.drawn[:, :, 1 : k + 1].sum(axis=2)


def _any_right(judged: Judgements, k: int) -> NDArray[np.bool_]:
    return np.asarray(judged.correct[:, :, 1 : k + 1].any(axis=2))


def _any_verdict(judged: Judgements, k: int) -> NDArray[np.bool_]:
    return np.asarray((judged.verdicts[:, :, 1 : k + 1] > 0).any(axis=2))


def chance_of_any(k: int) -> float:
    """What any@K is for a coin: it says little about a judge when K is large."""
    return 1 - 0.5**k


def tokens_per_judgement(judged: Judgements) -> float:
    """Mean tokens of all answers, votes included."""
    return float(judged.tokens[judged.drawn].mean())


def seconds_per_judgement(judged: Judgements) -> float:
    """Mean time of an answer, votes included, all servers together."""
    return float(judged.seconds[judged.drawn].mean())


def reflecting(judged: Judgements) -> float:
    """Share of the greedy answers that go back on themselves at least once."""
    return float((judged.reflections[:, :, GREEDY] > 0).mean())
