# SPDX-License-Identifier: Apache-2.0
"""The scoring front's HTTP application."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1reward_api.base import ApiModel
from r1reward_trainer.rollout import RolloutError
from r1reward_trainer.scoring.front import Front, OutOfTime, PromptFailed
from r1reward_trainer.scoring.judging import Unanswerable
from r1reward_trainer.scoring.page import CONTENT_SECURITY_POLICY, PAGE
from r1reward_trainer.scoring.places import NoPlace
from r1reward_trainer.scoring.protocol import ModelInfo, ScoreRequest, ScoreResponse
from r1reward_trainer.scoring.readiness import NotReady
from r1reward_trainer.verifier.guard import RETRY_SECONDS, Guard
from r1reward_trainer.verifier.malformed import malformed

OPEN_PATHS = frozenset({"/", "/health", "/ready", "/metrics"})
"""Without the token: probes, and the page, which asks for it."""
SCORE_PATH = "/v1/score"
CLIENT_LEFT = 499
"""As proxies log it; nobody receives it."""

T = TypeVar("T")


class Fault(ApiModel):
    """Why there is no score."""

    error: Annotated[str, Field(min_length=1)]
    """In words, with the remedy."""


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


def create_app(
    front: Front, token: str, *, on_failure: Callable[[BaseException], Any] = lambda _: None
) -> FastAPI:
    """All routes: `/v1/score`, the page at `/`, `/openapi.json`, `/health`, `/ready`, `/metrics`.

    Args:
        front: scores; closed with the application.
        token: asked for on all but OPEN_PATHS.
        on_failure: called when the weights are not the job's.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(front.watch())
        task.add_done_callback(lambda done: _report(done, on_failure))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await front.close()

    app = FastAPI(
        title="R1-Reward scoring",
        description="Compares answers to a question about images, two by two and in both orders.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(
        Guard,
        token=token,
        # A body that never finds room is too long, and not to be sent again.
        max_body_bytes=min(front.limits.body_bytes, front.limits.bodies_bytes),
        open_paths=OPEN_PATHS,
        max_bodies_bytes=front.limits.bodies_bytes,
    )
    app.add_middleware(_Counted, note=lambda status: _count(front, status))
    app.add_exception_handler(RequestValidationError, malformed)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        headers = {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        return Response(PAGE, media_type="text/html; charset=utf-8", headers=headers)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """This process lives; whether the model does, /ready says."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"model": Fault}})
    async def ready() -> Response:
        """The model has the job's weights, their digest was compared, and it answers."""
        try:
            front.readiness.require()
        except NotReady as error:
            return _fault(503, str(error), RETRY_SECONDS)
        return Response('{"status":"ready"}', media_type="application/json")

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(front.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get(
        "/v1/model",
        response_model=ModelInfo,
        responses={status: {"model": Fault} for status in (401, 503)},
        dependencies=[Depends(HTTPBearer(auto_error=False))],
    )
    async def model() -> Response:
        """The weights that judge, once the model has them."""
        try:
            front.readiness.require()
        except NotReady as error:
            return _fault(503, f"the model cannot judge now: {error}", RETRY_SECONDS)
        return Response(front.info.model_dump_json(by_alias=True), media_type="application/json")

    @app.post(
        SCORE_PATH,
        response_model=ScoreResponse,
        responses={
            400: {"description": "The body is no UTF-8, or too deeply nested"},
            **{status: {"model": Fault} for status in (401, 408, 413, 429, 502, 503, 504)},
        },
        dependencies=[Depends(HTTPBearer(auto_error=False))],
    )
    async def score(body: ScoreRequest, request: Request) -> Response:
        """Every two answers are compared twice, once in each order. A client that leaves gives
        up its prompts at the model."""
        return await _scored(front, body, request)

    return app


class _Counted:
    """ASGI middleware: tells the status of every answer to a request for scores, whoever gave
    it."""

    def __init__(self, app: ASGIApp, note: Callable[[int], None]) -> None:
        self._app = app
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._note(message["status"])
            await send(message)

        if scope.get("path") != SCORE_PATH:
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, noted)
        except Exception:
            # Its answer is made further out. One that has begun has been told.
            if not begun:
                self._note(500)
            raise


def _count(front: Front, status: int) -> None:
    front.metrics.requests.labels(status=str(status)).inc()


async def _scored(front: Front, body: ScoreRequest, request: Request) -> Response:
    try:
        answer = await unless_gone(request, front.score(body))
    except Unanswerable as error:
        detail = [{"loc": ["body", *error.field], "msg": str(error), "type": "value_error"}]
        return Response(json.dumps({"detail": detail}), 422, media_type="application/json")
    except NoPlace as error:
        return _fault(429, str(error), error.retry_after)
    except (NotReady, RolloutError) as error:
        return _fault(503, f"the model cannot judge now: {error}", RETRY_SECONDS)
    except PromptFailed as error:
        return _fault(502, f"the model's server fails with this request: {error}")
    except OutOfTime as error:
        return _fault(504, str(error))
    except ClientLeft:
        return Response(status_code=CLIENT_LEFT)
    return Response(answer.model_dump_json(by_alias=True), media_type="application/json")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; it is cancelled as soon as the client is gone.

    Raises:
        ClientLeft: it is.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeft
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _report(done: asyncio.Task[None], on_failure: Callable[[BaseException], Any]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        on_failure(error)


def _fault(status: int, message: str, retry_after: int | None = None) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = Fault(error=message).model_dump_json()
    return Response(body, status, headers=headers, media_type="application/json")
