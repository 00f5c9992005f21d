# SPDX-License-Identifier: Apache-2.0
"""The verifier as it runs in its pod, on a free port: `TOKEN CONCURRENCY [JUDGE URL]`."""

import socket
import sys

import uvicorn

from r1reward_api.resource.training import Algorithm
from r1reward_trainer.verifier.app import create_app
from r1reward_trainer.verifier.judge import Judge, JudgeOptions
from r1reward_trainer.verifier.metrics import VerifierMetrics
from r1reward_trainer.verifier.scoring import Scoring
from r1reward_trainer.verifier.service import RewardService


def serve(token: str, concurrency: int, judge_url: str | None) -> None:
    """Prints the port, then serves until it is killed."""
    metrics = VerifierMetrics()
    judge = None
    if judge_url:
        # Nothing is remembered: every sample costs a call.
        options = JudgeOptions(url=judge_url, max_concurrency=concurrency, cache_bytes=0)
        judge = Judge(options, metrics)
    app = create_app(RewardService(Scoring(Algorithm()), judge, metrics), token)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
