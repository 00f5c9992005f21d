# SPDX-License-Identifier: Apache-2.0
"""The teacher: an OpenAI-compatible chat service that sees images.

Bounded concurrency, a deadline for each request, retries with backoff and jitter
within a bound of time. What a failure means is decided here, once:

    401, 403            the API key is refused: final, the user must act
    404, 405            wrong URL or model: final
    other 4xx           this question is refused (such as by a content filter)
    408, 429, 5xx, none tried again; in the end this question is refused if another is answered
                        meanwhile or a plain one then, else it is infrastructure
    rubbish, too long   tried again likewise: a proxy's page, a cut or endless answer
"""

import asyncio
import base64
import json
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Self

import httpx
from PIL import Image

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import Teacher
from r1reward_trainer.api_key import bearer
from r1reward_trainer.logs.lines import printable
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError
from r1reward_trainer.retry_after import retry_after
from r1reward_trainer.service_url import usable

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0
"""How long one question is tried again."""
SHORTEST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
PLAIN_TEXT = "Answer with one word: is this a question?"
PLAIN_PIXELS = 64
"""Of the sides of its image: every model takes as many."""
PLAIN_TRIES = 3
KINDS_SAID = 8
"""Kinds of faults that are logged, each once."""
REFUSALS_BEFORE_GIVING_UP = 16
"""So many questions refused before any was answered: it is not the questions."""
MAX_ANSWER_BYTES = 4 << 20
"""Several times the longest maxTokens."""

_RETRIED = frozenset({408, 409, 425, 429})
_SECRET_LENGTH = 16
"""Of the shortest key that is cut out of answers."""
_ERROR_CHARACTERS = 300
_ERROR_BYTES = 4096


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        text: the prompt.
        images: PNG, JPEG or WebP files, shown before the text.
        temperature: of the sampling.
        seed: of the sampling, where the service heeds it.
    """

    text: str
    images: tuple[bytes, ...]
    temperature: float
    seed: int


@dataclass(frozen=True)
class Reply:
    """What came of a question.

    Attributes:
        text: as the teacher wrote it, in characters that UTF-8 can hold.
        faults: tries that failed before it.
    """

    text: str
    faults: int = 0


class Refused(Exception):
    """The service will not answer this question, and asking again would not help.

    Args:
        why: in words.
        faults: tries that failed before it.
    """

    def __init__(self, why: str, faults: int = 0) -> None:
        super().__init__(why)
        self.faults = faults


class _TryAgain(Exception):
    """A failure that may pass.

    Args:
        fault: in words.
        after: seconds that the service asks to wait.
    """

    def __init__(self, fault: str, after: float | None = None) -> None:
        super().__init__(fault)
        self.after = after


class TeacherClient:
    """Asks the teacher; an async context manager.

    Args:
        teacher: who is asked.
        api_key: sent as bearer token; never logged or kept, not even where the service says it
            again.
        concurrency: requests in flight.
        patience: seconds for which one question is tried again.
        answered: whether another client of the run, such as that of an earlier attempt, has had
            an answer; may block. Asked only before it is said that nothing is accepted.

    Raises:
        ConfigurationError: for a key that no HTTP header can carry, or a URL that is none.
    """

    def __init__(
        self,
        teacher: Teacher,
        api_key: str | None,
        concurrency: int,
        patience: float = PATIENCE_SECONDS,
        answered: Callable[[], bool] = lambda: False,
    ) -> None:
        self._teacher = teacher
        self._answered = answered
        self._url = usable(teacher.base_url, "annotate.teacher.baseUrl") + "/chat/completions"
        self._patience = patience
        self._slots = asyncio.Semaphore(concurrency)
        self._refusals = 0
        self._answers = 0
        self._last_answer = 0.0
        self._secret = (api_key or "").strip()
        self._said: set[str] = set()
        self._http = httpx.AsyncClient(
            headers=bearer(api_key, "annotate.teacher.apiKeySecretRef"),
            timeout=teacher.timeout_seconds,
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, question: Question) -> Reply:
        """The teacher's answer.

        Raises:
            Refused: this question will not be answered.
            ConfigurationError: TeacherDenied, or nothing that was asked is accepted.
            InfrastructureError: TeacherUnavailable, after `patience` without any answer.
        """
        async with self._slots:
            try:
                reply = await self._ask_patiently(question)
            except Refused as refusal:
                self._refusals += 1
                if await self._accepts_nothing():
                    raise ConfigurationError(
                        Reason.CONFIGURATION_ERROR,
                        f"annotate.teacher at {self._url} refused the first {self._refusals} "
                        f"questions: {refusal}; check annotate.teacher.model and maxTokens",
                    ) from refusal
                raise
            self._answers += 1
            self._last_answer = time.monotonic()
            return reply

    async def _accepts_nothing(self) -> bool:
        if self._answers > 0 or self._refusals < REFUSALS_BEFORE_GIVING_UP:
            return False
        if await asyncio.to_thread(self._answered):
            self._answers = 1  # never asked again
            return False
        return self._answers == 0

    async def _ask_patiently(self, question: Question) -> Reply:
        body = chat_request(self._teacher, question)
        begin = time.monotonic()
        tries = 0
        while True:
            try:
                return Reply(await self._ask_once(body), tries)
            except Refused as refusal:
                refusal.faults = tries
                raise
            except _TryAgain as fault:
                pause = _backoff(tries) if fault.after is None else _asked_pause(fault.after)
                tries += 1
                if time.monotonic() + pause - begin > self._patience:
                    raise await self._give_up(question, begin, tries, fault) from fault
                self._say(fault)
                await asyncio.sleep(pause)

    def _say(self, fault: _TryAgain) -> None:
        """Logs each kind of fault once: how many there were is counted in the results."""
        kind = str(fault)
        if kind not in self._said and len(self._said) < KINDS_SAID:
            self._said.add(kind)
            logger.warning("teacher: %s; tried again, and said only once", kind)

    async def _give_up(
        self, question: Question, begin: float, tries: int, fault: _TryAgain
    ) -> Exception:
        asked_to_wait = fault.after is not None  # which a service does for itself
        if self._last_answer > begin or (not asked_to_wait and await self._answers_plain(question)):
            return Refused(f"{fault} {tries} times", tries)  # it is this question
        return InfrastructureError(
            Reason.TEACHER_UNAVAILABLE,
            f"annotate.teacher at {self._url} has not answered for {self._patience:.0f} s "
            f"({tries} tries, last: {fault}); check the service and "
            "annotate.teacher.maxConcurrency",
        )

    async def _answers_plain(self, question: Question) -> bool:
        """Whether a question of the same shape that nothing can be wrong with is answered.

        Without it the last question of a run, with no other beside it, could never be given up.
        It counts as no answer: 16 questions that are refused, and none answered, end the run.
        """
        images = tuple(_plain_image() for _ in question.images[:1])
        plain = replace(question, text=PLAIN_TEXT, images=images)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._teacher.timeout_seconds):
                for tries in range(PLAIN_TRIES):
                    try:
                        await self._ask_once(chat_request(self._teacher, plain))
                    except Refused:
                        return False
                    except _TryAgain:
                        await asyncio.sleep(_backoff(tries))
                    else:
                        return True
        return False

    async def _ask_once(self, body: dict[str, Any]) -> str:
        try:
            async with asyncio.timeout(self._teacher.timeout_seconds):
                async with self._http.stream("POST", self._url, json=body) as response:
                    raw = await _bounded(response)
        except TimeoutError:
            raise _TryAgain(f"no answer within {self._teacher.timeout_seconds} s") from None
        except httpx.TransportError as error:
            raise _TryAgain(f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]) from error
        except httpx.HTTPError as error:
            raise _TryAgain(type(error).__name__) from error
        return self._read(response, raw)

    def _read(self, response: httpx.Response, raw: bytes) -> str:
        status = response.status_code
        if status == 200:
            try:
                text = _answer_text(raw)
                # A short key is a placeholder such as "none", and a word of any answer.
                return self._without_key(text) if len(self._secret) >= _SECRET_LENGTH else text
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                fault = f"the answer is no chat completion: {self._excerpt(raw)!r}"
                raise _TryAgain(fault) from error
        if status in (401, 403):
            raise ConfigurationError(
                Reason.TEACHER_DENIED,
                f"annotate.teacher at {self._url} refuses the API key (HTTP {status}); check "
                "annotate.teacher.apiKeySecretRef",
            )
        if status in (404, 405):
            raise ConfigurationError(
                Reason.CONFIGURATION_ERROR,
                f"annotate.teacher: HTTP {status} from {self._url}: {self._excerpt(raw)}; check "
                f"annotate.teacher.baseUrl (it ends in /v1) and model {self._teacher.model!r}",
            )
        if status in _RETRIED or status >= 500:
            raise _TryAgain(f"HTTP {status}", retry_after(response.headers.get("retry-after")))
        raise Refused(f"HTTP {status}: {self._excerpt(raw)}")

    def _excerpt(self, raw: bytes) -> str:
        """The beginning of what the service says, on one line."""
        words = " ".join(raw[:_ERROR_BYTES].decode(errors="replace").split())
        return printable(self._without_key(words)[:_ERROR_CHARACTERS])

    def _without_key(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text


def chat_request(teacher: Teacher, question: Question) -> dict[str, Any]:
    """The body of POST /chat/completions: images first, then the text."""
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(image)}} for image in question.images
    ]
    content.append({"type": "text", "text": question.text})
    return {
        "model": teacher.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": teacher.max_tokens,
        "temperature": question.temperature,
        "seed": question.seed,
    }


def _plain_image() -> bytes:
    """A small white PNG."""
    file = BytesIO()
    Image.new("RGB", (PLAIN_PIXELS, PLAIN_PIXELS), "white").save(file, "PNG")
    return file.getvalue()


def data_url(image: bytes) -> str:
    """An image file as a data: URL."""
    if image.startswith(b"\x89PNG"):
        kind = "png"
    elif image.startswith(b"RIFF"):
        kind = "webp"
    else:
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _asked_pause(seconds: float) -> float:
    """As long as the service asks, within reason; jitter on top so that not all return at once."""
    return min(seconds, LONGEST_PAUSE_SECONDS) * (1 + random.random() / 4)


def _backoff(tries: int) -> float:
    longest = min(LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS * 2 ** min(tries, 16))
    return longest * (0.5 + random.random() / 2)


async def _bounded(response: httpx.Response) -> bytes:
    raw = bytearray()
    async for piece in response.aiter_bytes():
        raw += piece
        if len(raw) > MAX_ANSWER_BYTES:
            raise _TryAgain(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(raw)


def _answer_text(raw: bytes) -> str:
    """The first choice's text.

    Raises:
        ValueError, LookupError, TypeError, RecursionError: when there is none.
    """
    content = json.loads(raw)["choices"][0]["message"]["content"]
    if not isinstance(content, str):  # None: the model declined
        return ""
    return content.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
