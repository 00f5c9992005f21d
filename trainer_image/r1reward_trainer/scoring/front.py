# SPDX-License-Identifier: Apache-2.0
"""The scoring front as a value: what stands behind its routes."""

import asyncio
import time
from collections.abc import Callable

from r1reward_trainer.rollout import RolloutError, ServerUnavailable, StaleWeights
from r1reward_trainer.rollout.types import ServerLost
from r1reward_trainer.scoring.judging import Judge
from r1reward_trainer.scoring.metrics import ScoringMetrics
from r1reward_trainer.scoring.places import Limits, Places
from r1reward_trainer.scoring.protocol import ModelInfo, ScoreRequest, ScoreResponse, calls
from r1reward_trainer.scoring.readiness import INTERVAL_SECONDS, Readiness
from r1reward_trainer.scoring.server import ModelServer

PROBE_SECONDS = 60.0
"""How long the model may be silent: then a probe is sent, and has as long."""


class OutOfTime(Exception):
    """The request's deadline has passed."""


class PromptFailed(Exception):
    """The model's server answers a prompt with an error of its own, and others well."""


class Front:
    """Scores within limits, while it is ready. For one event loop.

    Args:
        judge: scores.
        server: what the judge asks.
        verify: compares the weights with the job's; blocks, and raises when they are others.
        limits: what is borne.
        interval: seconds between two checks.
        probe_seconds: how long the model may be silent.
    """

    def __init__(
        self,
        judge: Judge,
        server: ModelServer,
        verify: Callable[[], None],
        limits: Limits,
        interval: float = INTERVAL_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self.limits = limits
        self.metrics = ScoringMetrics()
        self._judge = judge
        self._server = server
        self._probe_seconds = probe_seconds
        self._places = Places(limits.in_flight)
        self.metrics.in_flight.set_function(lambda: self._places.taken)
        self.readiness = Readiness(
            lambda: asyncio.to_thread(verify), self._check, self.metrics.ready.set, interval
        )

    @property
    def info(self) -> ModelInfo:
        """What judges."""
        return self._judge.info

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """Scores, or says at once why not.

        Raises:
            NotReady: the model is not there.
            NoPlace: too much is under way.
            Unanswerable: the request asks for what cannot be done.
            OutOfTime: the deadline passed.
            PromptFailed: the model's server fails with this request.
            RolloutError: the model cannot judge any more.
        """
        self.readiness.require()
        begin = time.monotonic()
        try:
            with self._places.take(calls(len(request.answers))) as at_once:
                async with asyncio.timeout(self.limits.deadline_seconds):
                    response = await self._judge.score(request, at_once)
        except TimeoutError:
            seconds = self.limits.deadline_seconds
            raise OutOfTime(f"the model has not answered in {seconds:g} s") from None
        except (ServerLost, StaleWeights) as error:
            self.readiness.lost(error)
            raise
        except RolloutError as error:
            await self._require_life()
            raise PromptFailed(str(error)) from error
        self.metrics.note(response, time.monotonic() - begin)
        return response

    async def watch(self) -> None:
        """Keeps the readiness up to date, for ever."""
        await self.readiness.watch()

    async def close(self) -> None:
        """Ends connections and threads."""
        self._judge.close()
        await self._server.close()

    async def _require_life(self) -> None:
        """One request must not make the model look out for all the others."""
        try:
            await self._check()
        except RolloutError as error:
            self.readiness.lost(error)
            raise

    async def _check(self) -> None:
        await self._server.check()
        if self._places.taken and self._server.silence < self._probe_seconds:
            return  # what is under way tells, and a probe would wait behind it
        try:
            async with asyncio.timeout(self._probe_seconds):
                await self._judge.probe()
        except TimeoutError:
            if self._server.silence < self._probe_seconds:
                return  # the probe waits behind others, which are answered
            raise ServerUnavailable(
                f"the model wrote no token in {self._probe_seconds:g} s"
            ) from None
