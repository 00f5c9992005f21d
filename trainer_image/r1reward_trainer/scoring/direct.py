# SPDX-License-Identifier: Apache-2.0
"""A vLLM server asked without a front: what the front does is done here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import ValidationError

from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.rollout import PromptMismatch, RequestRefused, RolloutError, StaleWeights
from r1reward_trainer.rollout.client import NoAnswer
from r1reward_trainer.rollout.types import ServerLost
from r1reward_trainer.scoring.asking import Busy, Failed, Full, Scorer
from r1reward_trainer.scoring.items import BadItem
from r1reward_trainer.scoring.judging import Judge, Unanswerable
from r1reward_trainer.scoring.model import judge_of
from r1reward_trainer.scoring.places import NoPlace
from r1reward_trainer.scoring.protocol import ModelInfo, ScoreRequest, ScoreResponse
from r1reward_trainer.scoring.server import ModelServer


@asynccontextmanager
async def server_itself(
    run_config: Path,
    model: Path,
    address: tuple[str, int],
    token: str,
    deadline_seconds: float,
    temperature: float,
) -> AsyncIterator[Scorer]:
    """What scores, while the context lasts.

    Args:
        run_config: file with the served job's run configuration.
        model: folder of its model.
        address: host and port of the server.
        token: of the server.
        deadline_seconds: of a prompt.
        temperature: of the calibration.

    Raises:
        ConfigurationError: one of them makes no sense.
    """
    judge, server, _ = judge_of(
        _run_config(run_config), model, *address, token, deadline_seconds, temperature
    )
    try:
        yield _Server(judge, server)
    finally:
        judge.close()
        await server.close()


def _run_config(path: Path) -> RunConfig:
    try:
        return RunConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(Reason.INVALID_SPEC, f"--run-config {path}: {error}") from error


class _Server:
    def __init__(self, judge: Judge, server: ModelServer) -> None:
        self._judge = judge
        self._server = server

    async def model(self) -> ModelInfo:
        try:
            await self._server.check()
            await self._judge.probe()
        except (RequestRefused, PromptMismatch) as error:
            raise ConfigurationError(
                Reason.INVALID_SPEC,
                f"--model or --run-config is not of the model that vLLM serves: {error}",
            ) from error
        except RolloutError as error:
            raise Busy(str(error)) from error
        return self._judge.info

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        try:
            return await self._judge.score(request)
        except Unanswerable as error:
            field = ".".join(map(str, error.field))
            raise BadItem(f"{field}: {error}" if field else str(error)) from error
        except NoPlace as error:
            raise Full(str(error), error.retry_after) from error
        except NoAnswer as error:
            raise Failed(f"{error}; raise --deadline-seconds") from error
        except (ServerLost, StaleWeights) as error:
            raise Busy(str(error)) from error
        except RolloutError as error:
            raise Failed(f"{error}; the log of vLLM says why") from error
