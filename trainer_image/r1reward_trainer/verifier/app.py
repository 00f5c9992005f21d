# SPDX-License-Identifier: Apache-2.0
"""The verifier's HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBasic, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from r1reward_rollout.tail import served
from r1reward_trainer.logs.pod import PATH as LOGS_PATH
from r1reward_trainer.verifier.compat import compat_router
from r1reward_trainer.verifier.guard import Guard
from r1reward_trainer.verifier.malformed import malformed
from r1reward_trainer.verifier.protocol import RewardsRequest, RewardsResponse
from r1reward_trainer.verifier.service import RewardService

API_VERSION = "1"
MAX_BODY_BYTES = 64 << 20


class Health(BaseModel):
    """The answer of /health."""

    status: str


class Refusal(BaseModel):
    """What is said to a request that reaches no route."""

    error: str


class Fault(BaseModel):
    """One fault of a request: where, and which."""

    loc: list[str | int]
    msg: str


class Malformed(BaseModel):
    """What is said to a request that cannot be rewarded. The input is not in it."""

    detail: str | list[Fault]


# Only described here: the Guard demands them, of unknown paths too, before a body is read.
_BEARER = HTTPBearer(auto_error=False, description="The attempt's token.")
_BASIC = HTTPBasic(auto_error=False, description="The attempt's token as password.")
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": Malformed,
        "description": "The body is no UTF-8, or too deeply nested",
    },
    401: {"model": Refusal, "description": "No token, or another"},
    408: {"model": Refusal, "description": "The body came too slowly"},
    413: {"model": Refusal, "description": "The body is too long"},
    422: {"model": Malformed, "description": "The request cannot be rewarded"},
}


def create_app(
    service: RewardService,
    token: str,
    *,
    tail: Path | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> FastAPI:
    """All routes: `/v1/rewards`, those of other frameworks, `/health`, `/metrics`, `/r1/logs`, and
    their description at `/openapi.json`.

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

    app = FastAPI(
        title="R1-Reward verifier",
        summary="Rewards for answers that compare two responses (arXiv 2505.02835, section 3.3)",
        version=API_VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard, token=token, max_body_bytes=max_body_bytes)
    app.add_exception_handler(RequestValidationError, malformed)

    @app.get("/health", tags=["operation"])
    async def health() -> Health:
        """Whether it serves. A judge that is out is neutral, and no reason to be unready."""
        return Health(status="ok")

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    guarded = APIRouter(dependencies=[Security(_BEARER), Security(_BASIC)], responses=_REFUSALS)

    @guarded.post("/v1/rewards", tags=["rewards"])
    async def rewards(body: RewardsRequest) -> RewardsResponse:
        """The reward of each sample: every term, and why."""
        return await service.rewards(body.samples)

    guarded.include_router(compat_router(service))

    if tail is not None:

        @guarded.get(LOGS_PATH, tags=["operation"])
        def logs() -> dict[str, str]:
            """The pod's name and the last output of this process."""
            return served(tail)

    app.include_router(guarded)
    return app
