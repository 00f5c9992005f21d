# SPDX-License-Identifier: Apache-2.0
"""`make bench-verifier`: rewards a second, beside the released code's design, in one run.

Both ask the same judge, a process that answers each question after 0.3 seconds; both are
servers in processes of their own, asked over HTTP. They run in turn, so that a ratio has the
noise of both in it. The judge's time taken away (0 seconds), what is left is each one's own.
"""

import argparse
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from r1reward_trainer.render import chain
from r1reward_trainer.verifier.client import VerifierClient
from r1reward_trainer.verifier.protocol import Sample
from tests.bench.spread import Spread

RESULT = Path("docs/results/verifier.json")
IN_FLIGHT = 64
JUDGE_SECONDS = 0.3
START_SECONDS = 120.0

Score = Callable[[Sequence[Sample]], list[float]]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        repetitions: of both designs, in turn.
        ours, blocking: samples in each.
        overhead: samples with a judge that takes no time, of ours; the other gets a share.
    """

    repetitions: int = 7
    ours: int = 1024
    blocking: int = 32
    overhead: int = 2048


def main() -> int:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--repetitions", type=int, default=Size.repetitions)
    arguments = parser.parse_args()
    result = measure(Size(repetitions=arguments.repetitions), JUDGE_SECONDS)
    result = {
        "command": "make bench-verifier",
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "loadAverage": [round(load, 1) for load in os.getloadavg()],
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("fastapi", "uvicorn", "httpx", "openai")},
        },
        **result,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + f"\n{arguments.out}\n")
    return 0


def measure(size: Size, judge_seconds: float) -> dict[str, Any]:
    """All figures, by servers that are started for them."""
    with ExitStack() as running:
        slow, instant = (running.enter_context(judge(s)) for s in (judge_seconds, 0.0))
        ours = running.enter_context(verifier(slow))
        blocking = running.enter_context(blocking_verifier(slow))
        rounds = [
            {
                "ours": rate(ours, samples(size.ours, f"{n}a")),
                "blocking": rate(blocking, samples(size.blocking, f"{n}b")),
            }
            for n in range(-1, size.repetitions)
        ][1:]  # the first warms both up
        return {
            "judgeSeconds": judge_seconds,
            "inFlight": IN_FLIGHT,
            "samples": {"ours": size.ours, "blocking": size.blocking},
            "repetitions": size.repetitions,
            "samplesPerSecond": {
                name: asdict(Spread.of([r[name] for r in rounds])) for name in ("ours", "blocking")
            },
            "ratio": asdict(Spread.of([r["ours"] / r["blocking"] for r in rounds])),
            "mostThatTheJudgeAllows": round(IN_FLIGHT / judge_seconds, 1),
            "ownMillisecondsPerSample": overhead(size, instant),
        }


def overhead(size: Size, judge_url: str) -> dict[str, Any]:
    """Milliseconds a sample, when the judge takes no time, and without a judge."""
    with ExitStack() as running:
        ours = running.enter_context(verifier(judge_url))
        unjudged = running.enter_context(verifier(None))
        blocking = running.enter_context(blocking_verifier(judge_url))
        taken: dict[str, list[float]] = {"ours": [], "oursWithoutJudge": [], "blocking": []}
        for n in range(-1, size.repetitions):
            batch = samples(size.overhead, f"{n}c")
            rates = {
                "ours": rate(ours, batch),
                "oursWithoutJudge": rate(unjudged, batch, judged=False),
                "blocking": rate(blocking, batch[: max(2, size.overhead // 32)]),
            }
            for name, value in rates.items():
                taken[name].append(1000 / value)
    return {name: asdict(Spread.of(values[1:])) for name, values in taken.items()}


def samples(number: int, name: str) -> list[Sample]:
    """Right verdicts, so that every one needs the judge's word; half of the chains agree."""
    return [
        Sample(
            id=f"{name}-{i}",
            response=chain(1, f"sample {name}-{i}\nso it {'agrees' if i % 2 == 0 else 'differs'}"),
            gold=1,
        )
        for i in range(number)
    ]


def rate(score: Score, batch: Sequence[Sample], *, judged: bool = True) -> float:
    """Samples a second.

    Raises:
        RuntimeError: when a reward is not the sample's.
    """
    expected = [(2.0, 1.0)[i % 2] if judged else 1.5 for i in range(len(batch))]
    begin = time.perf_counter()
    rewards = score(batch)
    seconds = time.perf_counter() - begin
    if rewards != expected:
        raise RuntimeError(f"wrong rewards: {rewards[:8]} …, expected {expected[:8]} …")
    return len(batch) / seconds


@contextmanager
def verifier(judge_url: str | None) -> Iterator[Score]:
    """Our service behind the trainer's client."""
    token = secrets.token_hex(16)
    arguments = [token, str(IN_FLIGHT), *([judge_url] if judge_url else [])]
    with (
        server("tests.bench.verifier_server", *arguments) as url,
        VerifierClient(url, token) as client,
    ):
        _until_healthy(url)

        yield lambda batch: [reward.total for reward in client.score(batch)]


@contextmanager
def blocking_verifier(judge_url: str) -> Iterator[Score]:
    """The released design."""
    with server("tests.bench.blocking_verifier", judge_url) as url:

        def blocking(batch: Sequence[Sample]) -> list[float]:
            body = [[sample.response, sample.gold] for sample in batch]
            return httpx.post(url, json=body, timeout=600).raise_for_status().json()["rewards"]

        yield blocking


@contextmanager
def judge(seconds: float) -> Iterator[str]:
    """The base URL of a judge that takes so long for each answer."""
    with server("tests.bench.judge_server", str(seconds)) as url:
        yield f"{url}/v1"


@contextmanager
def server(module: str, *arguments: str) -> Iterator[str]:
    """The URL of a module that prints its port and serves."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # it may have a process of its own
            process.wait(30)


def _until_healthy(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(f"{url}/health", timeout=10).raise_for_status()
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
