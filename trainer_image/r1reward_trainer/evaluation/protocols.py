# SPDX-License-Identifier: Apache-2.0
"""How others ask and count, computed from the greedy answers in both orders.

The released benchmark scripts put the better answer first, always, and take whatever is not 1
for 2 (R1-Reward, section 5): a judge that always says 1 scores 100 %. Their figures stand beside
those of both orders, so that published numbers can be compared and the bias be seen.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from r1reward_trainer.evaluation.benchmarks import Benchmark
from r1reward_trainer.evaluation.predictions import GREEDY, Judgements
from r1reward_trainer.method.verdict import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    last_digit,
    released_fallback,
)

Protocol = Literal["BothOrders", "SeededRandom", "Release"]


def released_choice(response: str, benchmark: Benchmark | None) -> int:
    """The answer, 1 or 2, that the released benchmark scripts give the reward to, fault for fault.

    The first answer block, read as a number (so `1.0` is 1); without a block the last 1 or 2 of
    the text or, in the script for MM-RLHF-RewardBench, of the first line that holds one. What is
    not 1 or cannot be read is 2.
    """
    # No regular expression: many blocks that nothing closes would each be read to the end.
    block, closed, _ = response.partition(ANSWER_OPEN)[2].partition(ANSWER_CLOSE)
    if not closed:
        fallback = released_fallback if benchmark == "MM-RLHF-RewardBench" else last_digit
        return 1 if fallback(response) == 1 else 2
    try:
        return 1 if float(block.strip()) == 1 else 2
    except ValueError:
        return 2


def correct_by_row(judged: Judgements, protocol: Protocol, seed: int) -> NDArray[np.float64]:
    """[rows]: how right the judge is on each row under the protocol.

    BothOrders: share of the two orders that is right. SeededRandom: one order a row, drawn by
    seed. Release: the order with the better answer first, read by `released_choice`.
    """
    correct = judged.correct[:, :, GREEDY]
    rows = np.arange(len(judged.gold))
    match protocol:
        case "BothOrders":
            return correct.mean(axis=1)
        case "SeededRandom":
            return correct[rows, drawn_orders(len(rows), seed)].astype(np.float64)
        case "Release":
            chosen_first = judged.gold.astype(np.int64) - 1  # order in which gold is 1
            return (judged.released[rows, chosen_first] == 1).astype(np.float64)


def drawn_orders(rows: int, seed: int) -> NDArray[np.int64]:
    """[rows]: for each row one of the two orders, drawn by seed."""
    return np.random.default_rng(seed).integers(0, 2, size=rows)
