# SPDX-License-Identifier: Apache-2.0
"""What a user gets wrong: the condition, its reason and its message, on the real cluster.

All jobs are applied at once; each test reads its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.e2e import digits_job, watch
from tests.e2e.connection import Connection
from tests.e2e.kubectl import Kubectl
from tests.e2e.waiting import wait_for

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
NAMESPACE = "r1reward-faults"
END_SECONDS = 420

FINAL: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-model": ({"model": {"uri": "s3://r1reward/digits/nothing"}}, "InvalidModel", "nothing"),
    "no-rows": (
        {"data": {"preferences": [{"uri": "s3://r1reward/digits/nothing/*.parquet"}]}},
        "InvalidData",
        "nothing/*.parquet",
    ),
    "no-bucket": (
        {"storage": {"uri": "s3://no-such-bucket/artifacts"}},
        "StorageDenied",
        "no-such-bucket",
    ),
    "wrong-keys": ({"storage": {"secretRef": {"name": "wrong"}}}, "StorageDenied", "s3://r1reward"),
    "short-prompts": ({"data": {"maxPromptTokens": 16}}, "InvalidData", "maxPromptTokens"),
    "long-answers": ({"evaluate": {"maxNewTokens": 4096}}, "InvalidSpec", "serving.maxModelLength"),
}
"""By name of the job: what is changed, the stage's reason, and words of the message."""

BLOCKED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-runtime": ({"runtimeRef": {"name": "not-there-yet"}}, "Dependency", "not-there-yet"),
    "no-secret": ({"storage": {"secretRef": {"name": "later"}}}, "Dependency", 'secret "later"'),
    "no-image": ({"runtimeRef": {"name": "no-image"}}, "ImagePull", "r1reward/trainer:no-such-tag"),
    "no-node": (
        {"overrides": {"roles": {"prepare": {"nodeSelector": {"pool": "none"}}}}},
        "Unschedulable",
        "nodeSelector",
    ),
}
"""By name of the job: what is changed, the reason of Blocked, and words of the message."""


def job_of(kubectl: Kubectl, name: str) -> dict[str, Any]:
    return kubectl.json("-n", NAMESPACE, "get", "r1rj", name)


@pytest.fixture(scope="module")
def applied(cluster: Connection) -> Iterator[Kubectl]:
    """All the jobs, in a namespace of their own that can be deleted in the end."""
    kubectl = cluster.kubectl
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    digits_job.make_namespace(kubectl, cluster.storage, NAMESPACE)
    wrong = {**cluster.storage, "AWS_SECRET_ACCESS_KEY": "planted-wrong-key"}
    kubectl.apply(digits_job.storage_secret(wrong, "wrong"), namespace=NAMESPACE)
    runtime = digits_job.load("digits/runtime.yaml")
    runtime["metadata"]["name"] = "no-image"
    runtime["spec"]["images"]["trainer"] = "r1reward/trainer:no-such-tag"
    kubectl.apply(runtime)
    for name, (change, _, _) in {**FINAL, **BLOCKED}.items():
        kubectl.apply(digits_job.digits_job(name, **change), namespace=NAMESPACE)
    yield kubectl
    kubectl.run(
        "delete", "clusterr1rewardruntime", "no-image", "not-there-yet", "--ignore-not-found"
    )
    kubectl.run("delete", "namespace", NAMESPACE, "--timeout=180s")


@pytest.mark.parametrize("name", list(FINAL))
def test_a_wrong_input_fails_at_once_with_a_word_and_a_remedy(applied: Kubectl, name: str):
    _, reason, words = FINAL[name]

    def failed() -> Mapping[str, Any] | None:
        status = job_of(applied, name).get("status", {})
        return status if watch.is_true(status, "Failed") else None

    status = wait_for(f"{name} failed", failed, END_SECONDS)
    condition = watch.condition(status, "Failed")
    assert condition is not None
    stage = status["stages"][0]
    assert (stage["name"], stage["attempt"], stage["reason"]) == ("prepare", 1, reason)
    assert words in condition["message"], condition["message"]
    assert "planted-wrong-key" not in str(status)
    assert watch.is_true(status, "Stalled")
    assert not watch.is_true(status, "Ready")


@pytest.mark.parametrize("name", list(BLOCKED))
def test_what_is_not_there_yet_blocks_the_job_with_its_cause(applied: Kubectl, name: str):
    _, reason, words = BLOCKED[name]

    def blocked() -> Mapping[str, Any] | None:
        found = watch.condition(job_of(applied, name).get("status", {}), "Blocked")
        # On a full node a pod may have to wait for its turn before it shows its own cause.
        return found if found and (found["status"], found["reason"]) == ("True", reason) else None

    condition = wait_for(f"{name} blocked by {reason}", blocked, END_SECONDS)
    assert words in condition["message"], condition["message"]


def test_a_blocked_job_goes_on_by_itself_when_what_it_needs_is_there(
    applied: Kubectl, cluster: Connection
):
    runtime = digits_job.load("digits/runtime.yaml")
    runtime["metadata"]["name"] = "not-there-yet"
    applied.apply(runtime)
    applied.apply(digits_job.storage_secret(cluster.storage, "later"), namespace=NAMESPACE)
    for name in ("no-runtime", "no-secret"):

        def healed(name: str = name) -> bool:
            status = job_of(applied, name).get("status", {})
            stages = status.get("stages", [{}])
            return not watch.is_true(status, "Blocked") and stages[0].get("phase") == "Succeeded"

        wait_for(f"{name} healed", healed, END_SECONDS)
        applied.run("-n", NAMESPACE, "delete", "r1rj", name, "--timeout=60s")


def test_a_quota_blocks_and_its_end_heals(applied: Kubectl):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"requests.cpu": "1m"}},
    }
    applied.apply(quota, namespace=NAMESPACE)
    job = digits_job.digits_job("quota", data={"seed": 99}, annotate=None, sft=None, rl=None)
    applied.apply(job, namespace=NAMESPACE)

    def blocked() -> Mapping[str, Any] | None:
        found = watch.condition(job_of(applied, "quota").get("status", {}), "Blocked")
        return found if found and found["status"] == "True" else None

    assert wait_for("quota blocked", blocked, 120)["reason"] == "Quota"
    applied.run("-n", NAMESPACE, "delete", "resourcequota", "none")

    def healed() -> bool:
        stages = job_of(applied, "quota").get("status", {}).get("stages", [{}])
        return stages[0].get("phase") in ("Running", "Succeeded")

    wait_for("quota healed", healed, END_SECONDS)
    applied.run("-n", NAMESPACE, "delete", "r1rj", "quota", "--timeout=60s")
