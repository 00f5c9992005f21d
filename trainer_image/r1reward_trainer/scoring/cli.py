# SPDX-License-Identifier: Apache-2.0
"""The verbs for scoring, as `r1` offers them. What they need is imported when they run."""

import argparse
from typing import Any

from r1reward_api.constants import ROLLOUT_PORT, SCORING_PORT
from r1reward_trainer.environment import Environment
from r1reward_trainer.scoring.places import Limits

VERBS = ("score", "scoring-front")


def add_verbs(verbs: Any) -> None:
    """Adds the verbs to argparse's subparsers."""
    _add_front(verbs.add_parser("scoring-front", help="serve scores by the vLLM server beside it"))


def run(environment: Environment, given: argparse.Namespace) -> None:
    """Runs one of VERBS.

    Raises:
        StageError: as the verb says.
    """
    from r1reward_trainer.scoring.serve import serve

    serve(environment, given)


def _add_front(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--port", type=int, default=SCORING_PORT)
    parser.add_argument("--server", default="127.0.0.1", help="address of the vLLM server")
    parser.add_argument("--server-port", type=int, default=ROLLOUT_PORT)
    parser.add_argument(
        "--in-flight",
        type=int,
        default=limits.in_flight,
        help="prompts at the model at once; n answers make n * (n - 1)",
    )
    parser.add_argument("--body-bytes", type=int, default=limits.body_bytes, help="of a request")
    parser.add_argument(
        "--deadline-seconds", type=float, default=limits.deadline_seconds, help="of a request"
    )
    _add_temperature(parser)


def _add_temperature(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="of the calibration: calibration.temperature in the job's report.json",
    )
