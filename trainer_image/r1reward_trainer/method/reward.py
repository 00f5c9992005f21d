# SPDX-License-Identifier: Apache-2.0
"""The reward of a sample (paper, section 3.3)."""

from enum import StrEnum
from typing import Literal


class JudgeOutcome(StrEnum):
    """What is known of a chain's agreement with its verdict."""

    MATCH = "match"
    """The judge says that the chain concludes the verdict."""
    MISMATCH = "mismatch"
    """The judge says that it does not."""
    REFUSED = "refused"
    """The judge refuses the text of this question, and answers a plain one."""
    UNKNOWN = "unknown"
    """The judge's answer could not be read."""
    UNAVAILABLE = "unavailable"
    """The judge did not answer."""
    SKIPPED = "skipped"
    """The judge was not asked: there is none, or its word could not have mattered."""


def consistency_value(outcome: JudgeOutcome, values: Literal["Signed", "ZeroOne"]) -> int:
    """-1, 0 or +1 (Signed, as the released code) or 0 and 1 (ZeroOne). What is not known is 0."""
    if outcome is JudgeOutcome.MATCH:
        return 1
    # The policy wrote what is refused: as 0, it would hide a chain that contradicts its verdict.
    if outcome in (JudgeOutcome.MISMATCH, JudgeOutcome.REFUSED) and values == "Signed":
        return -1
    return 0


def total_reward(
    result: int,
    consistency: int,
    fmt: int,
    *,
    consistency_weight: float = 0.5,
    format_weight: float = 0.5,
) -> float:
    """R = result * (1 + consistencyWeight * consistency) + formatWeight * format.

    The product keeps a wrong but self-consistent sample from gaining (paper, section 3.3).

    Args:
        result: 1 when the verdict is the gold one, else 0.
        consistency: of `consistency_value`.
        fmt: 1 when the form is right, else 0.
    """
    return result * (1.0 + consistency_weight * consistency) + format_weight * fmt
