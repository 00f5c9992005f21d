# SPDX-License-Identifier: Apache-2.0
"""What a user sends to the API server, and what it answers."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.apiserver import Kubernetes
from tests.cluster.errors import ClusterError

ROOT = Path(__file__).parents[3]
JOB = yaml.safe_load((ROOT / "manifests/examples/qwen2.5-vl-7b.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    """The example with one field set; `...` removes it."""
    job = copy.deepcopy(JOB)
    *parents, last = path.split(".")
    target = job
    for name in parents:
        target = target.setdefault(name, {})
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return job


def dry_run(apiserver: Kubernetes, job: dict[str, Any]) -> str:
    return apiserver.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(job))


@pytest.mark.parametrize(
    "path",
    ["manifests/examples", "manifests/runtimes"],
)
def test_the_examples_are_accepted(apiserver: Kubernetes, path: str):
    assert "created" in apiserver.kubectl("apply", "--dry-run=server", "-k", str(ROOT / path))


def test_the_demos_runtime_and_job_are_accepted(apiserver: Kubernetes):
    folder = ROOT / "tests/e2e/manifests/digits"
    for name in ("runtime.yaml", "job.yaml"):
        apiserver.kubectl("apply", "--dry-run=server", "-f", str(folder / name))


def test_what_is_not_written_has_the_papers_value(apiserver: Kubernetes):
    text = apiserver.kubectl(
        "apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(JOB)
    )
    rl = json.loads(text)["spec"]["rl"]
    assert rl["algorithm"] == {
        "name": "StableReinforce",
        "clipEpsilon": 0.2,
        "preClipMax": 1000,
        "advantageFilterSigma": 3,
        "klCoefficient": 0,
        "normalization": "Token",
        "baseline": "Batch",
        "formatWeight": 0.5,
        "consistency": {"weight": 0.5, "values": "Signed"},
        "releaseCompatible": False,
    }
    assert rl["miniBatchSize"] == 128
    assert rl["optimizer"]["beta2"] == 0.95


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("metadata.name", "Qwen", "lowercase"),
        ("metadata.name", "a" * 41, "at most 40 characters"),
        ("metadata.name", "7b", "beginning with a letter"),
        ("spec.model.uri", "Qwen/Qwen2.5-VL-7B", "must be hf://organisation/name"),
        ("spec.model.uri", "http://example.com/model", "must be hf://organisation/name"),
        ("spec.storage.uri", "s3://x", "must look like s3://bucket/prefix"),
        ("spec.storage.uri", "reward-models", "must look like s3://bucket/prefix"),
        ("spec.storage.secretRef", ..., "exactly one of secretRef and serviceAccountName"),
        ("spec.storage.serviceAccountName", "x", "exactly one of secretRef and"),
        ("spec.data.preferences", [], "at least 1 items"),
        ("spec.data.holdout.fraction", 0, "greater than 0"),
        ("spec.data.holdout.fraction", 1, "less than 1"),
        ("spec.data.promptTemplate", "{question}", "must contain {question}, {answer1}"),
        ("spec.annotate.teacher.baseUrl", "api.openai.com", "must be an http:// or https:// URL"),
        ("spec.annotate", ..., "add an annotate section, or give sft.chains"),
        ("spec.rl.sampling.promptsPerStep", 100, "miniBatchSize must divide"),
        ("spec.rl.algorithm.baseline", "Group", "samplesPerPrompt of 2 or more"),
        ("spec.rl.algorithm.name", "PPO", "StableReinforce"),
        ("spec.rl.learningRate", "fast", "must be of type number"),
        ("spec.rl.rollout.weightTransfer", "NCCL", 'supported values: "ObjectStore"'),
        ("spec.rl.rollout.replicas", 0, "greater than or equal to 1"),
        ("spec.rl.verifier.judge.endpoint", "http://judge/v1", "exactly one of model"),
        ("spec.evaluate.gates", [{"metric": "Accuracy"}], "needs minimum or notWorseThan"),
        ("spec.evaluate.gates", [{"metric": "Accuracy", "minimum": 80}], "less than or equal to 1"),
        ("spec.evaluate.gates", [{"metric": "F1", "minimum": 0.5}], "OrderAgreement"),
        (
            "spec.evaluate",
            {"models": ["RL"], "gates": [{"metric": "Accuracy", "notWorseThan": "SFT"}]},
            "must be one of evaluate.models",
        ),
        (
            "spec.evaluate",
            {"models": ["SFT"], "gates": [{"metric": "Accuracy", "notWorseThan": "SFT"}]},
            "weights that the job trains before its last ones",
        ),
        ("spec.rerun", -1, "greater than or equal to 0"),
        ("spec.lr", 1, "unknown field"),
    ],
)
def test_a_broken_job_is_refused_with_the_remedy(
    apiserver: Kubernetes, path: str, value: Any, words: str
):
    with pytest.raises(ClusterError) as refused:
        dry_run(apiserver, changed(path, value))
    assert words in str(refused.value)


def test_gates_against_earlier_weights_are_accepted(apiserver: Kubernetes):
    gates = [{"metric": "Accuracy", "minimum": 0.7, "notWorseThan": "SFT"}]
    assert "created" in dry_run(apiserver, changed("spec.evaluate.gates", gates))


@pytest.mark.parametrize(
    "field",
    ["spec.rl.algorithm", "spec.data.holdout", "spec.policy", "status.stages"],
)
def test_explain_reads_like_documentation(apiserver: Kubernetes, field: str):
    text = apiserver.kubectl("explain", f"r1rj.{field}")
    assert "DESCRIPTION:" in text
    assert "<no description>" not in text


def test_a_started_job_keeps_its_meaning_and_only_its_operation_may_change(apiserver: Kubernetes):
    job = changed("metadata.name", "started")
    apiserver.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    status = {"status": {"startTime": "2026-01-01T00:00:00Z"}}
    apiserver.kubectl(
        "patch", "r1rj", "started", "--subresource=status", "--type=merge", "-p", json.dumps(status)
    )
    try:
        for path, value in (
            ("spec.suspend", True),
            ("spec.rl.rollout.replicas", 5),
            ("spec.evaluate.rolloutReplicas", 2),
            ("spec.policy.activeDeadlineSeconds", 100),
            ("spec.rerun", 1),
        ):
            accepted = changed(path, value)
            accepted["metadata"]["name"] = "started"
            assert "configured" in dry_run(apiserver, accepted), path
        for path, value in (
            ("spec.rl.learningRate", 1e-5),
            ("spec.rl.verifier.judge.model", "hf://a/b"),
            ("spec.model.uri", "hf://a/b"),
            ("spec.runtimeRef.name", "other"),
            ("spec.sft", ...),
            ("spec.evaluate.votes", [1]),
            ("spec.storage.uri", "s3://other/root"),
        ):
            refused = changed(path, value)
            refused["metadata"]["name"] = "started"
            with pytest.raises(ClusterError, match="cannot change once the job has started"):
                dry_run(apiserver, refused)
    finally:
        apiserver.kubectl("delete", "r1rj", "started")


def test_rerun_may_only_grow(apiserver: Kubernetes):
    job = changed("spec.rerun", 2)
    job["metadata"]["name"] = "rerun"
    apiserver.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    try:
        job["spec"]["rerun"] = 1
        with pytest.raises(ClusterError, match="rerun may only grow"):
            dry_run(apiserver, job)
    finally:
        apiserver.kubectl("delete", "r1rj", "rerun")
