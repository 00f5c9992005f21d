# SPDX-License-Identifier: Apache-2.0
"""The scoring front as a process, beside a real vLLM server."""

import asyncio
import base64
import subprocess
from typing import Any

import httpx
import pytest

from r1reward_trainer.render import chain
from tests.cluster.processes import wait_until
from tests.integration.rollout.reference import picture
from tests.integration.scoring.conftest import AUTHORISED, REASONING, Pod

pytestmark = pytest.mark.timeout(600)


def body(*answers: str, images: int = 1) -> dict[str, Any]:
    encoded = base64.b64encode(picture(200)).decode()
    return {"question": "What is in it?", "answers": answers, "images": [encoded] * images}


def test_the_model_is_asked_in_both_orders_and_says_how_sure_it_is(pod: Pod, front: str):
    answer = httpx.post(
        f"{front}/v1/score", json=body("a cat", "<|im_end|>"), headers=AUTHORISED, timeout=60
    )
    assert answer.status_code == 200, answer.text
    score = answer.json()
    (pair,) = score["comparisons"]
    assert score["weights"] == pod.digest
    # It was taught to prefer the first place: each order for itself is sure, both know nothing.
    assert [o["verdict"] for o in pair["orders"]] == [1, 2]
    assert [o["reasoning"] for o in pair["orders"]] == [REASONING] * 2
    first, second = (o["probability"] for o in pair["orders"])
    assert first > 0.9
    assert second < 0.1
    assert abs(pair["probability"] - 0.5) < 0.4
    assert not pair["ordersAgree"]


def figure(pod: Pod, name: str) -> float:
    """One of vLLM's figures."""
    figures = httpx.get(f"{pod.server.url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in figures if line.startswith(name + "{"))


def test_a_client_that_leaves_ends_its_prompts_in_vllm(pod: Pod, front: str):
    answers = [f"answer {n}" for n in range(8)]
    whole = 8 * 7 * len(chain(1, REASONING))
    before = figure(pod, "vllm:generation_tokens_total")

    def running() -> bool:
        return figure(pod, "vllm:num_requests_running") > 0

    async def leave() -> None:
        async with httpx.AsyncClient(timeout=120) as http:
            url = f"{front}/v1/score"
            asked = asyncio.create_task(http.post(url, json=body(*answers), headers=AUTHORISED))
            while not await asyncio.to_thread(running):
                assert not asked.done()
            asked.cancel()

    asyncio.run(leave())
    wait_until("vLLM gives up the prompts", lambda: not running(), 60, pod.server.supervisor.check)
    assert figure(pod, "vllm:generation_tokens_total") - before < whole / 2
    assert "r1reward_scoring_in_flight 0.0" in httpx.get(f"{front}/metrics").text


def test_a_front_whose_weights_are_not_the_jobs_ends_with_the_reason(pod: Pod):
    done = subprocess.run(
        pod.command(0),
        env=dict(pod.environment("sha256:" + "0" * 64)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 78, done.stderr
    assert "but the job's weights have sha256:000" in done.stderr
