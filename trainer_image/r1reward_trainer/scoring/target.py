# SPDX-License-Identifier: Apache-2.0
"""Whom `r1 score` asks: a scoring front, or a vLLM server itself."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import ValidationError

from r1reward_api.base import ApiModel
from r1reward_api.constants import ROLLOUT_PORT
from r1reward_api.reasons import Reason
from r1reward_trainer.api_key import bearer
from r1reward_trainer.bounded import AnswerTooLong, raw_body
from r1reward_trainer.outcome import ConfigurationError, ProgramError
from r1reward_trainer.retry_after import retry_after
from r1reward_trainer.scoring.asking import Busy, Failed, Full, Scorer
from r1reward_trainer.scoring.items import BadItem
from r1reward_trainer.scoring.protocol import ModelInfo, ScoreRequest, ScoreResponse, calls
from r1reward_trainer.service_url import usable

M = TypeVar("M", bound=ApiModel)

_CONNECT_SECONDS = 10.0
_RESPONSE_BYTES = 1 << 20
"""Of a response of the model in JSON: 16 bytes a token of the longest that a job may ask for."""
_SHOWN_BYTES = 500
_MODEL_SECONDS = 30.0
"""What judges is told from memory."""
_FULL = 429
_OUT = 503
_FAILED = {
    408: "smaller images are sent sooner",
    500: "the front's log says why",
    502: "the log of vLLM says why",
    504: "give the front more --deadline-seconds, or the row fewer answers",
}
"""What one request fails with, by its own fault or not, and the remedy."""


@dataclass(frozen=True)
class Target:
    """Whom to ask; it can be sent to another process.

    Attributes:
        url: of the front or of vLLM.
        token_file: with its token.
        run_config: of the served job, where vLLM itself is asked; None for a front.
        model: folder of the job's model, likewise.
        temperature: of the calibration, likewise; a front has its own.
        deadline_seconds: of a request, from the call to the answer's last byte.
    """

    url: str
    token_file: Path
    run_config: Path | None = None
    model: Path | None = None
    temperature: float = 1.0
    deadline_seconds: float = 600.0

    def token(self) -> str:
        """The token.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(
                Reason.INVALID_SPEC, f"--token-file {self.token_file}: {error}"
            ) from error


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Scorer]:
    """What scores, while the context lasts.

    Raises:
        ConfigurationError: the target makes no sense.
    """
    flag = "--vllm" if target.run_config else "--front"
    url = usable(target.url, flag, "http://host:port")
    if target.run_config is None or target.model is None:
        headers = bearer(target.token(), "--token-file") | {"Accept-Encoding": "identity"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=limits,
            verify=ssl.create_default_context(),
        ) as http:
            yield _Front(http, target.deadline_seconds)
        return
    address = httpx.URL(url)
    if address.scheme != "http" or address.path != "/":
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            f"--vllm {target.url!r}: a rollout server has neither TLS nor paths, so it is asked "
            "otherwise than this says; it must look like http://host:port",
        )
    from r1reward_trainer.scoring.direct import server_itself  # torch, which fronts need not

    async with server_itself(
        target.run_config,
        target.model,
        (address.host, address.port or ROLLOUT_PORT),
        target.token(),
        target.deadline_seconds,
        target.temperature,
    ) as scorer:
        yield scorer


class _Front:
    def __init__(self, http: httpx.AsyncClient, deadline_seconds: float) -> None:
        self._http = http
        self._deadline_seconds = deadline_seconds

    async def model(self) -> ModelInfo:
        try:
            answer = await self._call("GET", "/v1/model", None, _RESPONSE_BYTES)
        except Failed as error:
            raise Busy(str(error)) from error
        except AnswerTooLong as error:
            raise ProgramError(Reason.PROGRAM_ERROR, f"{self._http.base_url}: {error}") from error
        return self._read(ModelInfo, answer)

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        body = request.model_dump_json(by_alias=True)
        most = (calls(len(request.answers)) + 1) * _RESPONSE_BYTES
        try:
            answer = await self._call("POST", "/v1/score", body, most)
        except AnswerTooLong as error:  # it would come again: the model answers alike
            raise BadItem(f"{self._http.base_url}: {error}") from error
        return self._read(ScoreResponse, answer)

    def _read(self, kind: type[M], answer: bytes) -> M:
        try:
            return kind.model_validate_json(answer)
        except ValidationError as error:
            shown = answer[:_SHOWN_BYTES].decode(errors="replace")
            raise ConfigurationError(
                Reason.INVALID_SPEC,
                f"--front {self._http.base_url} answers as no scoring front of this version does: "
                f"{shown}",
            ) from error

    async def _call(self, method: str, path: str, body: str | None, most: int) -> bytes:
        headers = {} if body is None else {"Content-Type": "application/json"}
        seconds = self._deadline_seconds
        if body is None:
            seconds = min(seconds, _MODEL_SECONDS)
        try:
            async with (
                asyncio.timeout(seconds),  # httpx's own is of each read
                self._http.stream(method, path, content=body, headers=headers) as answer,
            ):
                raw = await raw_body(answer, most)
        except TimeoutError:
            raise Failed(
                f"{self._http.base_url}: no whole answer in {seconds:g} s; raise --deadline-seconds"
            ) from None
        except httpx.TransportError as error:
            raise Busy(f"{self._http.base_url}: {type(error).__name__} {error}") from error
        if answer.status_code == 200:
            return raw
        text = raw[:_SHOWN_BYTES].decode(errors="replace")
        told = f"{self._http.base_url} answers {answer.status_code}: {text}"
        again = retry_after(answer.headers.get("retry-after"))
        if answer.status_code == _FULL:
            raise Full(told, again)
        if answer.status_code == _OUT:
            raise Busy(told, again)
        if answer.status_code in _FAILED:
            raise Failed(f"{told}; {_FAILED[answer.status_code]}")
        if answer.status_code in (413, 422):
            raise BadItem(told)
        if answer.status_code in (401, 403):
            raise ConfigurationError(
                Reason.CONFIGURATION_ERROR, f"{told}; is --token-file that of this front?"
            )
        raise ProgramError(Reason.PROGRAM_ERROR, told)
