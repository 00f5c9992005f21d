# SPDX-License-Identifier: Apache-2.0
"""Rewards for samples: scoring, with the judge asked where its word matters."""

import asyncio
from collections.abc import Sequence

from r1reward_trainer.method.reasons import SAID, ConsistencyReason
from r1reward_trainer.method.reward import JudgeOutcome
from r1reward_trainer.verifier.judge import Judge
from r1reward_trainer.verifier.metrics import VerifierMetrics
from r1reward_trainer.verifier.protocol import Reward, RewardsResponse, Sample
from r1reward_trainer.verifier.scoring import Scoring

_ERRORS = (JudgeOutcome.UNAVAILABLE, JudgeOutcome.UNKNOWN, JudgeOutcome.REFUSED)


class RewardService:
    """Gives rewards, all samples of a request at once.

    Args:
        scoring: the algorithm's reward.
        judge: of consistency; None: consistency is 0 for every sample.
        metrics: counted here.
    """

    def __init__(
        self, scoring: Scoring, judge: Judge | None, metrics: VerifierMetrics | None = None
    ) -> None:
        self.metrics = metrics or VerifierMetrics()
        self._scoring = scoring
        self._judge = judge

    async def rewards(self, samples: Sequence[Sample]) -> RewardsResponse:
        """Rewards in the order of the samples."""
        rewards = await asyncio.gather(*(self._reward(sample) for sample in samples))
        for reward in rewards:
            self.metrics.samples.labels(result=str(reward.result)).inc()
            self.metrics.judgements.labels(outcome=reward.judge.value).inc()
        errors = sum(reward.judge in _ERRORS for reward in rewards)
        algorithm = self._scoring.algorithm
        return RewardsResponse(
            rewards=list(rewards),
            judge_errors=errors,
            consistency_weight=algorithm.consistency.weight,
            format_weight=algorithm.format_weight,
        )

    async def close(self) -> None:
        """Closes the connections to the judge."""
        if self._judge is not None:
            await self._judge.close()

    async def _reward(self, sample: Sample) -> Reward:
        return self._scoring.reward(sample, await self._consistency(sample))

    async def _consistency(self, sample: Sample) -> ConsistencyReason:
        if self._judge is None:
            return ConsistencyReason.NO_JUDGE
        question = self._scoring.question(sample)
        if isinstance(question, ConsistencyReason):
            return question
        return SAID[await self._judge.ask(question, self._scoring.read_judgement)]
