# SPDX-License-Identifier: Apache-2.0
"""The scoring front as a process, beside a real vLLM server."""

import base64
import subprocess
from typing import Any

import httpx
import pytest

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


def _nothing() -> None:
    """There is no daemon to look at."""


def aborted(pod: Pod) -> float:
    """Prompts that vLLM has given up."""
    figures = httpx.get(f"{pod.server.url}/metrics", timeout=10).text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in figures
        if line.startswith("vllm:request_success_total") and 'finished_reason="abort"' in line
    )


def test_a_client_that_leaves_ends_its_prompts_in_vllm(pod: Pod, front: str):
    before = aborted(pod)
    url = f"{front}/v1/score"
    for seconds in (0.1, 0.2, 0.3, 0.4):  # until it is caught between rendering and the end
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body("a cat", "a dog"), headers=AUTHORISED, timeout=seconds)
        if aborted(pod) > before:
            break
    wait_until("vLLM gives up the prompts", lambda: aborted(pod) > before, 30, _nothing)
    kept = httpx.get(f"{front}/metrics").text
    assert "r1reward_scoring_in_flight 0.0" in kept


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
