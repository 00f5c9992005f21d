# SPDX-License-Identifier: Apache-2.0
"""From a response to its reward (paper, section 3.3), but for the judge's word."""

from dataclasses import dataclass
from typing import Literal, cast

from r1reward_api.resource.training import Algorithm
from r1reward_trainer.method.judge_prompt import (
    judge_prompt,
    parse_judgement,
    released_judgement,
    released_prompt,
    think_tail,
)
from r1reward_trainer.method.reasons import (
    ConsistencyReason,
    format_reason,
    outcome_of,
    result_reason,
    words,
)
from r1reward_trainer.method.reward import JudgeOutcome, consistency_value, total_reward
from r1reward_trainer.method.verdict import format_ok, parse_verdict, released_verdict
from r1reward_trainer.verifier.protocol import Reasons, Reward, Sample


@dataclass(frozen=True)
class Scoring:
    """The reward of one algorithm.

    Attributes:
        algorithm: weights, scale of consistency, and whether the released code is followed.
    """

    algorithm: Algorithm

    def verdict(self, response: str) -> int | None:
        """What the response chose."""
        read = released_verdict if self.algorithm.release_compatible else parse_verdict
        return read(response)

    def question(self, sample: Sample) -> str | ConsistencyReason:
        """The question to the judge, or why it need not be asked.

        Consistency multiplies the result, so only a right verdict is worth a question; a chain
        without text concludes nothing. The released code asks for every sample.
        """
        if self.algorithm.consistency.weight == 0:
            return ConsistencyReason.NO_WEIGHT
        if self.algorithm.release_compatible:
            return released_prompt(sample.response)
        verdict = self.verdict(sample.response)
        if verdict is None or verdict != sample.gold:
            return ConsistencyReason.RESULT_IS_0
        tail = think_tail(sample.response)
        return judge_prompt(tail, verdict) if tail else ConsistencyReason.EMPTY_CHAIN

    def read_judgement(self, answer: str) -> JudgeOutcome:
        """What the judge's answer means."""
        read = released_judgement if self.algorithm.release_compatible else parse_judgement
        return read(answer)

    def reward(self, sample: Sample, why: ConsistencyReason) -> Reward:
        """The reward, given what the judge said or why it was not asked."""
        verdict = self.verdict(sample.response)
        result = int(verdict == sample.gold)
        fmt = int(format_ok(sample.response))
        outcome = outcome_of(why)
        consistency = consistency_value(outcome, self.algorithm.consistency.values)
        released = self.algorithm.release_compatible
        reasons = Reasons(
            result=result_reason(sample.response, verdict, sample.gold, released=released),
            format=format_reason(sample.response),
            consistency=why,
        )
        return Reward(
            id=sample.id,
            result=cast("Literal[0, 1]", result),
            format=cast("Literal[0, 1]", fmt),
            consistency=cast("Literal[-1, 0, 1]", consistency),
            total=total_reward(
                result,
                consistency,
                fmt,
                consistency_weight=self.algorithm.consistency.weight,
                format_weight=self.algorithm.format_weight,
            ),
            verdict=cast("Literal[1, 2] | None", verdict),
            judge=outcome,
            reasons=reasons,
            explanation="; ".join(
                f"{term} {value}: {words(reason)}"
                for term, value, reason in (
                    ("result", result, reasons.result),
                    ("format", fmt, reasons.format),
                    ("consistency", consistency, reasons.consistency),
                )
            ),
        )
