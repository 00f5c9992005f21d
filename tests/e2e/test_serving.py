# SPDX-License-Identifier: Apache-2.0
"""What `serve-manifest` prints for a finished job serves scores on the cluster."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import yaml

from tests.digits.rows import QUESTION, WORDS, digits, encode
from tests.e2e import digits_job, watch
from tests.e2e.connection import Connection
from tests.e2e.kubectl import Kubectl
from tests.e2e.test_chain import CHAIN_SECONDS, SMALL
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]
NAME = "served"
TOKEN = "token-of-the-clients"


def serve_manifest(kubectl: Kubectl, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "r1reward_operator", "serve-manifest", NAME]
    where = ["--kubeconfig", str(kubectl.kubeconfig)] if kubectl.kubeconfig else []
    return subprocess.run(
        [*command, "-n", digits_job.NAMESPACE, *where, *flags],
        env={**os.environ, "PYTHONPATH": "operator:trainer_image"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def forwarded(kubectl: Kubectl, service: str) -> Iterator[str]:
    """The URL of a Service's pod."""
    environment = dict(os.environ)
    if kubectl.kubeconfig is not None:
        environment["KUBECONFIG"] = str(kubectl.kubeconfig)
    command = [kubectl.binary, "-n", digits_job.NAMESPACE, "port-forward", service, ":8080"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found, "kubectl forwards no port"
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()


def test_a_finished_jobs_model_gives_scores_by_the_printed_manifest(cluster: Connection):
    kubectl, namespace = cluster.kubectl, digits_job.NAMESPACE
    # The stages of the small chain, where it ran in this session; without rl.
    job = digits_job.digits_job(NAME, **{**SMALL, "rl": None})
    kubectl.run("-n", namespace, "delete", "r1rj", NAME, "--ignore-not-found")
    kubectl.apply(job, namespace=namespace)
    refused = serve_manifest(kubectl)
    assert (refused.returncode, "has not succeeded" in refused.stderr) == (1, True)

    def status_at_the_end() -> dict[str, Any] | None:
        status = kubectl.json("-n", namespace, "get", "r1rj", NAME).get("status", {})
        assert not watch.is_true(status, "Failed"), status["conditions"]
        return status if watch.is_true(status, "Succeeded") else None

    status = wait_for("the job's end", status_at_the_end, CHAIN_SECONDS)
    sft = next(stage for stage in status["stages"] if stage["name"] == "sft")

    printed = serve_manifest(kubectl)
    assert printed.returncode == 0, printed.stderr
    objects = list(yaml.safe_load_all(printed.stdout))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{NAME}-serving"},
        "stringData": {"token": TOKEN},
    }
    try:
        kubectl.apply(secret, *objects, namespace=namespace)
        kubectl.run(
            "-n", namespace, "rollout", "status", f"deployment/{NAME}-serving", "--timeout=600s",
            timeout=660,
        )  # fmt: skip
        with forwarded(kubectl, f"service/{NAME}-serving") as url:
            asked = {
                "question": QUESTION,
                "answers": [WORDS[3], WORDS[7]],
                "images": [base64.b64encode(encode(digits().pixels[0])).decode()],
            }
            assert httpx.post(f"{url}/v1/score", json=asked).status_code == 401
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answer = httpx.post(f"{url}/v1/score", json=asked, headers=headers, timeout=120)
            assert answer.status_code == 200, answer.text
            score = answer.json()
            assert score["weights"] == sft["outputs"]["weights"]["digest"]
            (pair,) = score["comparisons"]
            assert [order["shown"] for order in pair["orders"]] == [[1, 2], [2, 1]]
            assert all(order["tokens"] > 0 for order in pair["orders"])
            assert "r1reward_scoring_ready 1.0" in httpx.get(f"{url}/metrics").text
    finally:
        for one in (*objects, secret):
            kubectl.run(
                "-n", namespace, "delete", one["kind"], one["metadata"]["name"],
                "--ignore-not-found", "--wait=false",
            )  # fmt: skip
        kubectl.run("-n", namespace, "delete", "r1rj", NAME, "--timeout=60s")
