# SPDX-License-Identifier: Apache-2.0
"""`r1 verifier`: serves rewards for one attempt of one job's rl stage."""

import dataclasses
import os
from collections.abc import Mapping

import uvicorn

from r1reward_api.constants import VERIFIER_PORT
from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.environment import Environment
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.verifier.app import create_app
from r1reward_trainer.verifier.judge import Judge, JudgeOptions
from r1reward_trainer.verifier.listening import listening
from r1reward_trainer.verifier.metrics import VerifierMetrics
from r1reward_trainer.verifier.scoring import Scoring
from r1reward_trainer.verifier.service import RewardService

JUDGE_API_KEY = "R1_JUDGE_API_KEY"
_RELEASED_MAX_TOKENS = 4096


def serve(environment: Environment) -> None:
    """Serves until SIGTERM; requests in flight are finished within the grace period.

    Raises:
        ConfigurationError: without an rl section, a token, or a judge's address.
    """
    config = environment.load_config()
    token = environment.load_token()
    if not token:
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            f"no token in {environment.token_file}: the verifier serves nobody without one",
        )
    app = create_app(
        build_service(config, token, os.environ), token, tail=environment.tail("verifier")
    )
    uvicorn.run(app, **listening("0.0.0.0", VERIFIER_PORT, config.grace_period_seconds))


def build_service(config: RunConfig, token: str, environ: Mapping[str, str]) -> RewardService:
    """The reward service of a run.

    Args:
        config: of the rl stage.
        token: the attempt's token, which the job's own judge demands. An endpoint never sees it.
        environ: where the endpoint's key is.

    Raises:
        ConfigurationError: without an rl section or a judge's address.
    """
    rl = config.spec.rl
    if rl is None:
        raise ConfigurationError(Reason.INVALID_SPEC, "spec.rl is missing: nothing to verify")
    metrics = VerifierMetrics()
    scoring = Scoring(rl.algorithm)
    spec = rl.verifier.judge
    if spec is None:
        return RewardService(scoring, None, metrics)
    url = config.services.judge_url or spec.endpoint
    if url is None:
        raise ConfigurationError(
            Reason.INVALID_SPEC, "services.judgeUrl is missing, though rl.verifier.judge is given"
        )
    options = JudgeOptions(
        url=url,
        model=spec.endpoint_model if spec.endpoint else None,
        api_key=environ.get(JUDGE_API_KEY) if spec.endpoint else token,
        max_concurrency=spec.max_concurrency,
        timeout_seconds=spec.timeout_seconds,
    )
    if rl.algorithm.release_compatible:
        options = dataclasses.replace(options, max_tokens=_RELEASED_MAX_TOKENS)
    return RewardService(scoring, Judge(options, metrics), metrics)
