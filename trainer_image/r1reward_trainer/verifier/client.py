# SPDX-License-Identifier: Apache-2.0
"""The trainer's client of the verifier: synchronous, in batches, with an end to everything.

An exchange is cut at its deadline whatever the other end does: a socket's timeout alone would
let a byte a minute pass. So it runs on an event loop, in a thread of its own.
"""

import asyncio
import json
import logging
import random
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from r1reward_api.reasons import Reason
from r1reward_trainer.bounded import AnswerTooLong, raw_body
from r1reward_trainer.logs.pod import PATH as LOGS_PATH
from r1reward_trainer.logs.pod import PodLog
from r1reward_trainer.outcome import InfrastructureError, ProgramError
from r1reward_trainer.verifier.protocol import (
    Reward,
    RewardsRequest,
    RewardsResponse,
    Sample,
)

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 10.0
LOG_SECONDS = 10.0
"""For a log, from the call to its last byte."""
LOG_BYTES = 16 << 20
"""A log is up to one MiB of text, which JSON may write at several bytes a character."""
REWARD_BYTES = 8192
"""More than a reward in JSON takes, with the longest id."""
_CLOSE_SECONDS = 5.0
_REFUSED = (400, 404, 405, 413, 422)

T = TypeVar("T")


class VerifierUnavailable(InfrastructureError):
    """The verifier did not answer in time."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.VERIFIER_UNAVAILABLE, message)


class VerifierClient:
    """Asks for rewards. Thread-safe; use as a context manager, or call `close`.

    Args:
        url: base URL of the verifier.
        token: the attempt's token.
        batch_size: samples a request.
        connections: requests in flight; each is a chance for another verifier pod.
        deadline_seconds: for one `score`, retries included. Must exceed three judge timeouts.
        round_seconds: added for each further time that all `connections` send a batch.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        batch_size: int = 64,
        connections: int = 8,
        deadline_seconds: float = 600.0,
        round_seconds: float = 0.0,
    ) -> None:
        self._base = url.rstrip("/")
        self._url = self._base + "/v1/rewards"
        self._batch_size = batch_size
        self._connections = connections
        self._deadline_seconds = deadline_seconds
        self._round_seconds = round_seconds
        self._headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._trust = httpx.create_ssl_context()  # once: it reads all root certificates
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="verifier-client", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "VerifierClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is under way, which then raises VerifierUnavailable, and its connections."""
        if self._closed:
            return
        self._closed = True
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def score(self, samples: Sequence[Sample]) -> list[Reward]:
        """Rewards in the order of the samples.

        Raises:
            VerifierUnavailable: when not all came within the deadline.
            ProgramError: when the verifier refuses a request as malformed.
        """
        return self._run(self._score(samples))

    def logs(self, asks: int) -> Iterator[PodLog]:
        """The last output of the pods behind the URL: each ask comes to one of them by chance.

        Raises:
            httpx.HTTPError, TimeoutError, ValueError: when one does not give it.
        """
        for _ in range(asks):
            yield self._run(self._log())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for the work, which its own deadlines bound."""
        if self._closed:
            work.close()
            raise VerifierUnavailable("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise VerifierUnavailable("the client was closed meanwhile") from None
        finally:
            future.cancel()

    def _end(self) -> None:
        """On the loop: cancels all tasks, and stops once they have ended."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        ended = asyncio.gather(*tasks, return_exceptions=True)
        ended.add_done_callback(lambda _: self._loop.stop())

    async def _score(self, samples: Sequence[Sample]) -> list[Reward]:
        size = self._batch_size
        batches = [list(samples[i : i + size]) for i in range(0, len(samples), size)]
        further = max(0, -(-len(batches) // self._connections) - 1)
        deadline = time.monotonic() + self._deadline_seconds + further * self._round_seconds
        slots = asyncio.Semaphore(self._connections)
        async with httpx.AsyncClient(
            headers=self._headers,
            verify=self._trust,
            trust_env=False,  # a Service of the cluster: no proxy
            limits=httpx.Limits(max_connections=self._connections, keepalive_expiry=4.0),
        ) as http:

            async def in_turn(batch: list[Sample]) -> list[Reward]:
                async with slots:
                    return await self._batch(http, batch, deadline)

            tasks = [asyncio.ensure_future(in_turn(batch)) for batch in batches]
            try:
                return [reward for rewards in await asyncio.gather(*tasks) for reward in rewards]
            finally:
                for task in tasks:  # one that failed ends the others
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _batch(
        self, http: httpx.AsyncClient, samples: list[Sample], deadline: float
    ) -> list[Reward]:
        """One request, made again until it succeeds or the deadline comes."""
        pause = 0.25
        while True:
            why = await self._try(http, samples, deadline)
            if isinstance(why, list):
                return why
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            wait = pause * (0.5 + random.random() / 2)
            if time.monotonic() + wait >= deadline:
                raise VerifierUnavailable(f"{self._url} gave no rewards in time: {why}")
            logger.warning("verifier: %s; trying again in %.1f s", why, wait)
            await asyncio.sleep(wait)

    async def _try(
        self, http: httpx.AsyncClient, samples: list[Sample], deadline: float
    ) -> list[Reward] | str:
        """The rewards, or why there are none."""
        body = RewardsRequest(samples=samples).model_dump_json(by_alias=True)
        seconds = max(0.1, deadline - time.monotonic())
        try:
            async with asyncio.timeout(seconds):
                status, raw = await self._exchange(
                    http, "POST", self._url, (len(samples) + 1) * REWARD_BYTES, body
                )
        except TimeoutError:
            return f"no whole answer in {seconds:.1f} s"
        except AnswerTooLong as error:
            return str(error)
        except httpx.HTTPError as error:
            return f"{type(error).__name__} {error}".strip()
        if status in _REFUSED:
            raise ProgramError(
                Reason.PROGRAM_ERROR,
                f"{self._url} refuses the request: HTTP {status} "
                f"{raw[:300].decode(errors='replace')}; trainer and verifier must be of the same "
                "release",
            )
        if status != 200:
            return f"HTTP {status}"
        try:
            rewards = RewardsResponse.model_validate_json(raw).rewards
        except ValidationError as error:
            return f"malformed answer: {error.errors()[0]['msg']}"
        if [reward.id for reward in rewards] != [sample.id for sample in samples]:
            return "rewards of other samples than those sent"
        return rewards

    async def _log(self) -> PodLog:
        async with (
            asyncio.timeout(LOG_SECONDS),
            httpx.AsyncClient(headers=self._headers, verify=self._trust, trust_env=False) as http,
        ):
            url = self._base + LOGS_PATH
            status, raw = await self._exchange(http, "GET", url, LOG_BYTES)
        httpx.Response(status, request=httpx.Request("GET", url)).raise_for_status()
        answer = json.loads(raw)
        if not isinstance(answer, dict):
            raise ValueError("no log of a pod, but no object either")
        return PodLog.parse(answer)

    @staticmethod
    async def _exchange(
        http: httpx.AsyncClient, method: str, url: str, most: int, body: str | None = None
    ) -> tuple[int, bytes]:
        """Status and body; the caller sets the deadline.

        Raises:
            AnswerTooLong: for more than `most` bytes.
            httpx.HTTPError: when there is no answer.
        """
        async with http.stream(
            method,
            url,
            content=body,
            headers={"Content-Type": "application/json"} if body is not None else None,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        ) as response:
            return response.status_code, await raw_body(response, most)
