# SPDX-License-Identifier: Apache-2.0
"""`rl.verifier.judge.model`: the job deploys a judge of its own."""

from pathlib import Path
from typing import Any

import pytest

from r1reward_trainer.storage.outputs import upload_folder
from r1reward_trainer.storage.s3 import Store
from tests.digits.judge_model import build_judge
from tests.e2e import digits_job, watch
from tests.e2e.connection import Connection
from tests.e2e.test_chain import SMALL
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]
NAME = "own-judge"


def test_a_judge_of_the_jobs_own_is_ready_before_the_trainer_and_gone_with_the_stage(
    cluster: Connection, tmp_path: Path
):
    kubectl, bucket = cluster.kubectl, cluster.storage["R1_BUCKET"]
    upload_folder(Store.from_env(f"s3://{bucket}"), "digits/judge", build_judge(tmp_path / "judge"))
    verifier = {"judge": {"model": f"s3://{bucket}/digits/judge", "endpoint": None}}
    verifier["judge"] |= {"endpointModel": None, "apiKeySecretRef": None}
    job = digits_job.digits_job(NAME, **{**SMALL, "rl": {**SMALL["rl"], "verifier": verifier}})
    kubectl.run("-n", digits_job.NAMESPACE, "delete", "r1rj", NAME, "--ignore-not-found")
    kubectl.apply(job, namespace=digits_job.NAMESPACE)
    seen: dict[str, Any] = {"judge": False, "metrics": {}}

    def rl_is_done() -> bool:
        found = kubectl.json("-n", digits_job.NAMESPACE, "get", "r1rj", NAME)
        status = found.get("status", {})
        assert not watch.is_true(status, "Failed"), status["conditions"]
        progress = status.get("progress", {})
        if progress.get("stage") == "rl":
            seen["metrics"] = progress.get("metrics", {}) or seen["metrics"]
        stages = {s["name"]: s for s in status.get("stages", [])}
        rl = stages.get("rl", {"phase": "Pending"})
        if rl["phase"] == "Running":
            ready = kubectl.json(
                "-n", digits_job.NAMESPACE, "get", "deployments",
                "-l", f"r1reward.dev/job={NAME},r1reward.dev/role=judge",
            )["items"]  # fmt: skip
            seen["judge"] = [d["status"].get("readyReplicas", 0) for d in ready] == [1]
        return rl["phase"] == "Succeeded"

    wait_for("rl with a judge of its own", rl_is_done, 1800)
    assert seen["judge"], "rl ran without a ready judge"
    # A random model's answers cannot be read: every consistency is neutral, and counted.
    assert seen["metrics"]["judge/errors"] > 0
    assert seen["metrics"]["reward/consistency"] == 0

    def judge_is_gone() -> bool:
        selector = f"r1reward.dev/job={NAME},r1reward.dev/role=judge"
        left = kubectl.json("-n", digits_job.NAMESPACE, "get", "pods,deployments", "-l", selector)
        return not left["items"]

    wait_for("the judge gone", judge_is_gone, 120)
    kubectl.run("-n", digits_job.NAMESPACE, "delete", "r1rj", NAME, "--timeout=60s")
