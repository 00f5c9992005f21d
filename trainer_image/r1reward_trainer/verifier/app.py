# SPDX-License-Identifier: Apache-2.0
"""The verifier's HTTP application."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from r1reward_rollout.tail import served
from r1reward_trainer.logs.pod import PATH as LOGS_PATH
from r1reward_trainer.verifier.compat import compat_router
from r1reward_trainer.verifier.guard import Guard
from r1reward_trainer.verifier.protocol import RewardsRequest, RewardsResponse
from r1reward_trainer.verifier.service import RewardService

MAX_BODY_BYTES = 64 << 20


def create_app(
    service: RewardService,
    token: str,
    *,
    tail: Path | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> FastAPI:
    """All routes: `/v1/rewards`, those of other frameworks, `/health`, `/metrics`, `/r1/logs`.

    Args:
        service: gives the rewards; closed with the application.
        token: the attempt's token, asked for on all but /health and /metrics.
        tail: file of the last output of this process, given out by `/r1/logs`.
        max_body_bytes: longer requests are refused.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, token=token, max_body_bytes=max_body_bytes)
    app.include_router(compat_router(service))

    app.add_exception_handler(RequestValidationError, _malformed)

    @app.get("/health")
    async def health() -> dict[str, str]:
        # A judge that is out does not make the verifier unready: it is neutral then.
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v1/rewards")
    async def rewards(body: RewardsRequest) -> RewardsResponse:
        return await service.rewards(body.samples)

    if tail is not None:

        @app.get(LOGS_PATH)
        def logs() -> dict[str, str]:
            return served(tail)

    return app


async def _malformed(_: Request, error: Exception) -> Response:
    """422 with place and fault, but without the input: it may be long, and no valid JSON."""
    if not isinstance(error, RequestValidationError):
        raise error
    detail = [{"loc": fault["loc"], "msg": fault["msg"]} for fault in error.errors()]
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")
