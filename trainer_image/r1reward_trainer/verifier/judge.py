# SPDX-License-Identifier: Apache-2.0
"""The consistency judge, over the OpenAI chat protocol.

A judge that is slow, wrong or out never holds up training and never grants
reward: whatever cannot be had in time is `unavailable`, hence neutral. A text
that it refuses, while it answers others, is `refused`, hence not consistent.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from r1reward_trainer.api_key import bearer
from r1reward_trainer.method.judge_prompt import ANSWER_ATTEMPTS, PLAIN_QUESTION
from r1reward_trainer.method.reward import JudgeOutcome
from r1reward_trainer.retry_after import retry_after
from r1reward_trainer.service_url import usable
from r1reward_trainer.verifier.cache import JudgementCache
from r1reward_trainer.verifier.circuit import Circuit
from r1reward_trainer.verifier.metrics import VerifierMetrics
from r1reward_trainer.verifier.protocol import as_unicode

logger = logging.getLogger(__name__)

TEMPERATURE = 0.1
MAX_ANSWER_BYTES = 1 << 20
PATIENCE = 3
"""A sample waits at most this many call deadlines, for its turn and for retries together."""
_RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
_UNFIT = (400, 403, 413, 422)
"""What is said to a text that is too long or not wanted, as by the firewall of a gateway (403),
and by a wrong setting to any."""


@dataclass(frozen=True)
class JudgeOptions:
    """How the judge is asked.

    Attributes:
        url: base URL, ending in /v1.
        model: model name; None: the first one that the server lists.
        api_key: bearer token, if any.
        max_concurrency: calls in flight.
        timeout_seconds: deadline of one call.
        max_tokens: longest answer.
        attempts: calls for one answer, where the server fails in a way that may pass.
        backoff_seconds: mean pause before the second call; doubles.
        cache_bytes: memory for judgements that are remembered.
    """

    url: str
    model: str | None = None
    api_key: str | None = None
    max_concurrency: int = 64
    timeout_seconds: float = 60.0
    max_tokens: int = 16
    attempts: int = 3
    backoff_seconds: float = 0.5
    cache_bytes: int = 16 << 20


class JudgeFailed(Exception):
    """One call failed. `retry_after` is None when another call would fail alike."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class JudgeRefused(JudgeFailed):
    """The judge refuses the API key: no call can succeed."""


class QuestionRefused(JudgeFailed):
    """The judge does not take this question; it may take others."""


class JudgeSilent(JudgeFailed):
    """The circuit is open: no call was made."""


def backoff(mean_seconds: float, attempt: int, draw: float) -> float:
    """Seconds to wait after so many failed attempts.

    Args:
        mean_seconds: after the first one; doubles.
        attempt: from 1.
        draw: uniform in [0, 1), so that calls that failed together do not come back together.
    """
    return mean_seconds * 2**attempt * draw


@dataclass
class _Flight:
    """A question that is being asked, and how many wait for it."""

    task: asyncio.Task[JudgeOutcome]
    waiting: int = 0


class Judge:
    """Asks, within bounds of time and number. One event loop; call `close` at the end.

    Raises:
        ConfigurationError: for a key that no HTTP header can carry, or a URL that is none.
    """

    def __init__(
        self,
        options: JudgeOptions,
        metrics: VerifierMetrics | None = None,
        circuit: Circuit | None = None,
    ) -> None:
        self._options = options
        self._url = usable(options.url, "rl.verifier.judge.endpoint")
        self._metrics = metrics or VerifierMetrics()
        self._circuit = circuit or Circuit()
        self._slots = asyncio.Semaphore(options.max_concurrency)
        self._cache = JudgementCache(options.cache_bytes)
        self._flights: dict[str, _Flight] = {}
        self._model = options.model
        self._listed: str | None = None
        self._said: str | None = None
        self._refusals_said: set[str] = set()
        self._headers = {
            **bearer(options.api_key, "rl.verifier.judge.apiKeySecretRef"),
            # The limit of an answer is one of its bytes: nothing is unpacked.
            "Accept-Encoding": "identity",
        }
        self._trust = httpx.create_ssl_context()
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    async def close(self) -> None:
        """Closes the connections."""
        for client in self._clients:
            await client.aclose()

    @contextmanager
    def _client(self) -> Iterator[httpx.AsyncClient]:
        """A client for one call at a time; the one used last is taken first.

        One pool for all connections would compare each with each at every call: with 64 in
        flight that took most of the verifier's time.
        """
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            yield client
        finally:
            self._idle.append(client)

    def _new_client(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            headers=self._headers,
            verify=self._trust,
            timeout=self._options.timeout_seconds,
            # vLLM closes idle connections after 5 s.
            limits=httpx.Limits(max_connections=1, keepalive_expiry=4.0),
        )
        self._clients.append(client)
        return client

    async def ask(self, question: str, read: Callable[[str], JudgeOutcome]) -> JudgeOutcome:
        """The judge's word on one question. Equal questions at the same time are asked once.

        Args:
            question: the user message.
            read: turns an answer into an outcome; an unknown one is asked again. The same for
                equal questions.

        Returns:
            match, mismatch, refused, unknown (no answer could be read) or unavailable. Never
            raises for what the judge does, and never takes longer than PATIENCE call deadlines.
        """
        known = self._cache.get(question)
        if known is not None:
            self._metrics.judge_cache_hits.inc()
            return known
        flight = self._flights.get(question)
        if flight is None or flight.task.done():  # one that has failed is not to be joined
            flight = _Flight(asyncio.create_task(self._decide(question, read)))
            self._flights[question] = flight
        else:
            self._metrics.judge_shared.inc()
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)  # whoever goes leaves it to the others
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                flight.task.cancel()
                if self._flights.get(question) is flight:
                    del self._flights[question]

    async def _decide(self, question: str, read: Callable[[str], JudgeOutcome]) -> JudgeOutcome:
        """Asks within the time of a sample, and remembers what was said."""
        try:
            async with asyncio.timeout(PATIENCE * self._options.timeout_seconds):
                outcome = await self._ask(question, read)
        except TimeoutError:
            outcome = self._out("no answer in time")
        except JudgeFailed as error:
            outcome = self._out(str(error))
        self._metrics.judge_circuit_open.set(self._circuit.is_open)
        if outcome in (JudgeOutcome.MATCH, JudgeOutcome.MISMATCH):
            self._cache.put(question, outcome)
            self._metrics.judge_cache_bytes.set(self._cache.bytes)
        return outcome

    def _out(self, why: str) -> JudgeOutcome:
        if why != self._said:  # once for each cause, not for each sample
            logger.warning("the judge is out, consistency counts as 0: %s", why)
            self._said = why
        return JudgeOutcome.UNAVAILABLE

    async def _ask(self, question: str, read: Callable[[str], JudgeOutcome]) -> JudgeOutcome:
        try:
            for _ in range(ANSWER_ATTEMPTS):
                outcome = read(await self._answer(question))
                if outcome is not JudgeOutcome.UNKNOWN:
                    return outcome
        except QuestionRefused as refusal:
            return await self._refused(refusal)
        return JudgeOutcome.UNKNOWN

    async def _refused(self, refusal: QuestionRefused) -> JudgeOutcome:
        """Whether the text or the judge is at fault, which a plain question shows.

        So a text cannot silence the judge for others, or earn more by being refused, and a judge
        that takes nothing at all is out, and no chain's fault.
        """
        try:
            await self._answer(PLAIN_QUESTION)
        except QuestionRefused as error:
            self._circuit.trip()
            raise JudgeFailed(
                f"{error}, to a plain question, too; correct rl.verifier.judge: endpoint, "
                "endpointModel or apiKeySecretRef"
            ) from error
        why = str(refusal)
        if why not in self._refusals_said:
            logger.warning(
                "the judge refuses the text of a chain, which counts as not consistent: %s", why
            )
            self._refusals_said.add(why)
        return JudgeOutcome.REFUSED

    async def _answer(self, question: str) -> str:
        """One answer, asked for again while the failure may pass.

        A failure counts towards the circuit once all attempts are spent, so that a hiccup does
        not open it; a call that took its whole deadline is not repeated.
        """
        deadline = time.monotonic() + PATIENCE * self._options.timeout_seconds
        for attempt in range(1, self._options.attempts + 1):
            try:
                async with self._slots:
                    answer = await self._call(question)
            except JudgeRefused:
                self._circuit.trip()
                raise
            except (JudgeSilent, QuestionRefused):
                raise
            except JudgeFailed as error:
                pause = error.retry_after
                late = pause is not None and time.monotonic() + pause > deadline
                if pause is None or late or attempt == self._options.attempts:
                    self._circuit.failure()
                    raise
                self._metrics.judge_retries.inc()
                mean = self._options.backoff_seconds
                await asyncio.sleep(pause + backoff(mean, attempt, random.random()))
            else:
                self._circuit.success()
                self._said = None
                return answer
        raise AssertionError("unreachable: the last attempt raises or returns")

    async def _call(self, question: str) -> str:
        if not self._circuit.allow():
            raise JudgeSilent("it has failed repeatedly and is left alone for some seconds")
        start = time.monotonic()
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                model = await self._model_name()
                body = await self._request(
                    "POST",
                    "/chat/completions",
                    {
                        "model": model,
                        "messages": [{"role": "user", "content": question}],
                        "max_tokens": self._options.max_tokens,
                        "temperature": TEMPERATURE,
                    },
                )
        except (TimeoutError, httpx.TimeoutException) as error:
            raise JudgeFailed(f"no answer in {self._options.timeout_seconds} s") from error
        except httpx.HTTPError as error:
            raise JudgeFailed(f"connection: {type(error).__name__}", retry_after=0.0) from error
        self._metrics.judge_seconds.observe(time.monotonic() - start)
        try:
            choice = body["choices"][0]
            content = choice["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise JudgeFailed("the answer is no chat completion", retry_after=0.0) from error
        if choice.get("finish_reason") == "content_filter":
            raise QuestionRefused("its content filter holds the answer back")
        return content if isinstance(content, str) else ""

    async def _model_name(self) -> str:
        if self._model is None:
            listing = await self._request("GET", "/models", None)
            try:
                model = as_unicode(str(listing["data"][0]["id"]))
            except (KeyError, IndexError, TypeError) as error:
                raise JudgeFailed(
                    "it lists no model: set rl.verifier.judge.endpointModel", retry_after=0.0
                ) from error
            if model != self._listed:  # what another model said is no word of this one
                self._cache.clear()
            self._model = self._listed = model
        return self._model

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        with self._client() as client:
            return await self._exchange(client, method, path, body)

    async def _exchange(
        self, client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None
    ) -> Any:
        async with client.stream(method, self._url + path, json=body) as response:
            if response.status_code == 401:
                raise JudgeRefused(
                    "HTTP 401: it refuses the key; correct rl.verifier.judge.apiKeySecretRef"
                )
            if response.status_code in _RETRIED:
                raise JudgeFailed(
                    f"HTTP {response.status_code}",
                    retry_after(response.headers.get("retry-after")) or 0.0,
                )
            if response.status_code in _UNFIT:
                raise QuestionRefused(f"HTTP {response.status_code} from {method} {path}")
            if response.status_code == 404:
                self._model = self._options.model  # another model may be served by now
            if response.status_code != 200:
                raise JudgeFailed(f"HTTP {response.status_code} from {method} {path}")
            raw = bytearray()
            async for piece in response.aiter_raw():
                raw += piece
                if len(raw) > MAX_ANSWER_BYTES:
                    raise JudgeFailed(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise JudgeFailed("the answer is no JSON", retry_after=0.0) from error
