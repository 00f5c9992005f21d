# SPDX-License-Identifier: Apache-2.0
"""The verbs for scoring, as `r1` offers them. What they need is imported when they run."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from r1reward_api.constants import ROLLOUT_PORT, SCORING_PORT
from r1reward_trainer.environment import Environment
from r1reward_trainer.scoring.places import Limits

VERBS = ("score", "scoring-front")


def add_verbs(verbs: Any) -> None:
    """Adds the verbs to argparse's subparsers."""
    _add_score(verbs.add_parser("score", help="score a file's pairs or groups of answers"))
    _add_front(verbs.add_parser("scoring-front", help="serve scores by the vLLM server beside it"))


def run(environment: Environment, given: argparse.Namespace) -> None:
    """Runs one of VERBS.

    Raises:
        StageError: as the verb says.
    """
    if given.verb == "score":
        from r1reward_trainer.scoring.score import score

        score(given)
        return
    from r1reward_trainer.scoring.serve import serve

    serve(environment, given)


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", help="Parquet, JSONL, JSON or CSV: a path or s3:// URI, * within a folder"
    )
    parser.add_argument("--output", required=True, help="folder or s3:// URI for the scores")
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--front", help="URL of a scoring front")
    whom.add_argument("--vllm", help="URL of a vLLM server with the job's weights")
    parser.add_argument("--token-file", type=Path, required=True, help="file with its token")
    parser.add_argument("--run-config", type=Path, help="with --vllm: run.json of the served job")
    parser.add_argument("--model", type=Path, help="with --vllm: folder of the job's weights")
    parser.add_argument("--concurrency", type=_positive, default=16, help="rows asked at once")
    parser.add_argument("--processes", type=_positive, default=1, help="files spread by Ray Data")
    parser.add_argument(
        "--max-bad-rows",
        type=partial(_whole, least=0),
        default=0,
        help="of a file, put aside with their reason",
    )
    parser.add_argument(
        "--patience-seconds", type=_seconds, default=600.0, help="how long the model may be out"
    )
    parser.add_argument(
        "--full-seconds",
        type=_seconds,
        default=3600.0,
        help="how long it may be out or full with none of a file's rows scored",
    )
    parser.add_argument("--deadline-seconds", type=_seconds, default=600.0, help="of a row")
    _add_temperature(parser, "with --vllm: ", default=None)


def _add_front(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--port", type=int, default=SCORING_PORT)
    parser.add_argument("--server", default="127.0.0.1", help="address of the vLLM server")
    parser.add_argument("--server-port", type=int, default=ROLLOUT_PORT)
    parser.add_argument(
        "--in-flight",
        type=_positive,
        default=limits.in_flight,
        help="prompts at the model at once; n answers make n * (n - 1), of which a request has "
        "at most a quarter of these at once",
    )
    parser.add_argument(
        "--body-bytes", type=_positive, default=limits.body_bytes, help="of a request"
    )
    parser.add_argument(
        "--bodies-bytes",
        type=_positive,
        default=limits.bodies_bytes,
        help="of all requests that are being read or answered",
    )
    parser.add_argument(
        "--deadline-seconds", type=_seconds, default=limits.deadline_seconds, help="of a request"
    )
    _add_temperature(parser)


def _add_temperature(
    parser: argparse.ArgumentParser, when: str = "", default: float | None = 1.0
) -> None:
    parser.add_argument(
        "--temperature",
        type=float,
        default=default,
        help=f"{when}of the calibration: calibration.temperature in the job's report.json",
    )


def _whole(text: str, least: int) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be {least} or more, not {text}")
    return number


_positive = partial(_whole, least=1)


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number
