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
        ("spec.model.uri", "hf://Qwen2.5-VL-7B", "must be hf://organisation/name"),
        ("spec.model.uri", "hf://Qwen/Qwen2.5 VL", "must be hf://organisation/name"),
        ("spec.model.uri", "s3://Models/base", "must be hf://organisation/name"),
        ("spec.model.uri", "pvc://Claim_1/base", "must be hf://organisation/name"),
        ("spec.model.uri", "pvc://models/../etc", "must not contain .."),
        ("spec.model.uri", "hf://a/" + "b" * 1024, "may not be more than 1024"),
        ("spec.model.uri", 7, "must be of type string"),
        ("spec.model.uri", ..., "Required value"),
        ("spec.storage.uri", "s3://x", "must look like s3://bucket/prefix"),
        ("spec.storage.uri", "s3://bucket/a?versionId=1", "without ? and #"),
        ("spec.storage.uri", "s3://bucket/../other", "must not contain .."),
        ("spec.storage.secretRef.name", "My_Secret", "lower-case letters, digits, '-' and '.'"),
        ("spec.storage.uri", "reward-models", "must look like s3://bucket/prefix"),
        ("spec.storage.secretRef", ..., "exactly one of secretRef and serviceAccountName"),
        ("spec.storage.serviceAccountName", "x", "exactly one of secretRef and"),
        ("spec.runtimeRef.name", "H100_x8", "lower-case letters, digits, '-' and '.'"),
        ("spec.queueName", "GPUs", "lower-case letters, digits, '-' and '.'"),
        ("spec.data.preferences", [], "at least 1 items"),
        ("spec.data.preferences", ..., "Required value"),
        ("spec.data.preferences", [{"uri": "rows/x.parquet"}], "must look like s3://bucket/"),
        ("spec.data.preferences", [{"url": "s3://bucket/x"}], "unknown field"),
        (
            "spec.data.preferences",
            [{"uri": "s3://bucket/x", "format": "LLaVA"}],
            'supported values: "Plain"',
        ),
        (
            "spec.data.preferences",
            [{"uri": "s3://bucket/x", "columns": {"chosen": "better"}}],
            "give chosen and rejected together",
        ),
        (
            "spec.data.preferences",
            [{"uri": "s3://bucket/x", "columns": {"chosen": "a", "rejected": "b", "gold": "c"}}],
            "either chosen and rejected, or answer1, answer2 and gold",
        ),
        (
            "spec.data.preferences",
            [{"uri": "s3://bucket/x", "format": "POVID", "columns": {"id": "key"}}],
            "columns are for format Plain",
        ),
        ("spec.data.contamination", "Ignore", 'supported values: "Report", "Remove"'),
        ("spec.evaluate.sets", [{"uri": "s3://bucket/x"}], "Required value"),
        ("spec.evaluate.sets", [{"name": "VL", "uri": "s3://bucket/x"}], "such as vl-rewardbench"),
        (
            "spec.evaluate.sets",
            [{"name": "heldout", "uri": "s3://bucket/x"}],
            "choose another name",
        ),
        (
            "spec.evaluate.sets",
            [{"name": "a", "uri": "s3://bucket/x"}, {"name": "a", "uri": "s3://bucket/y"}],
            "have the same name: rename one",
        ),
        (
            "spec.evaluate.sets",
            [{"name": f"s{n}", "uri": "s3://bucket/x"} for n in range(17)],
            "must have at most 16 items",
        ),
        ("spec.data.minPixels", 600_000, "raise maxPixels or lower minPixels"),
        ("spec.data.maxPromptTokens", 8, "greater than or equal to 16"),
        ("spec.data.maxPromptTokens", "20k", "must be of type integer"),
        ("spec.data.maxBadRows", -1, "greater than or equal to 0"),
        ("spec.data.holdout.fraction", 0, "greater than 0"),
        ("spec.data.holdout.fraction", 1, "less than 1"),
        ("spec.data.promptTemplate", "{question}", "must contain {question}, {answer1}"),
        ("spec.annotate.teacher.baseUrl", "api.openai.com", "must be an http:// or https:// URL"),
        ("spec.annotate.teacher.baseUrl", "httpx://teacher/v1", "must be an http:// or https://"),
        ("spec.annotate.teacher.baseUrl", "http://", "must be an http:// or https:// URL"),
        ("spec.annotate.teacher.baseUrl", "http://teacher:http/v1", "such as https://host:port"),
        ("spec.annotate.teacher.baseUrl", "http://teacher:65536/v1", "such as https://host:port"),
        ("spec.annotate.teacher.baseUrl", "http://[::1/v1", "such as https://host:port"),
        ("spec.annotate.teacher.baseUrl", "http://teacher/v1\x7f", "in ASCII"),
        ("spec.annotate.teacher.baseUrl", "http://me:word@teacher/v1", "without user, password"),
        ("spec.annotate.teacher.apiKeySecretRef.key", "api key", "must be a key of letters"),
        ("spec.annotate", ..., "add an annotate section, or give sft.chains"),
        ("spec.rl.sampling.promptsPerStep", 100, "miniBatchSize must divide"),
        ("spec.rl.miniBatchSize", 512, "miniBatchSize must divide"),
        ("spec.sft.batchSize", 0, "greater than or equal to 1"),
        ("spec.sft.batchSize", 2.5, "must be of type integer"),
        ("spec.sft.chains", "own.jsonl", "must look like s3://bucket/prefix"),
        ("spec.rl.algorithm.baseline", "Group", "samplesPerPrompt of 2 or more"),
        ("spec.rl.algorithm.name", "PPO", "StableReinforce"),
        ("spec.rl.learningRate", "fast", "must be of type number"),
        ("spec.rl.rollout.weightTransfer", "NCCL", 'supported values: "ObjectStore"'),
        ("spec.rl.rollout.replicas", 0, "greater than or equal to 1"),
        ("spec.rl.verifier.judge.endpoint", "http://judge/v1", "exactly one of model"),
        (
            "spec.evaluate",
            {
                "sets": [{"name": f"s{n}", "uri": "s3://bucket/x"} for n in range(12)],
                "baselines": [{"name": f"b{n}", "uri": "hf://a/b"} for n in range(5)],
            },
            "at most 16 together",
        ),
        ("spec.evaluate.gates", [{"metric": "Accuracy"}], "needs minimum or notWorseThan"),
        ("spec.evaluate.gates", [{"metric": "Accuracy", "minimum": 80}], "less than or equal to 1"),
        ("spec.evaluate.gates", [{"metric": "F1", "minimum": 0.5}], "OrderAgreement"),
        (
            "spec.evaluate",
            {"models": ["RL"], "gates": [{"metric": "Accuracy", "notWorseThan": "SFT"}]},
            "must be one of evaluate.models or evaluate.baselines",
        ),
        (
            "spec.evaluate",
            {"gates": [{"metric": "Accuracy", "notWorseThan": "production"}]},
            "must be one of evaluate.models or evaluate.baselines",
        ),
        (
            "spec.evaluate.gates",
            [{"metric": "Accuracy", "notWorseThan": "RL"}],
            "must be Base, SFT or the name of one of evaluate.baselines",
        ),
        (
            "spec.evaluate",
            {"models": ["SFT"], "gates": [{"metric": "Accuracy", "notWorseThan": "SFT"}]},
            "weights that the job trains before its last ones",
        ),
        (
            "spec.rl.verifier.judge",
            {"model": "Qwen/Qwen2.5-7B"},
            "must be hf://organisation/name or",
        ),
        ("spec.rl.verifier.judge", {"model": "pvc://models/judge"}, "hf://organisation/name or s3"),
        ("spec.rl.verifier.judge", {"endpoint": "judge:8000"}, "must be an http:// or https://"),
        ("spec.overrides", {"roles": {"rollouts": {}}}, "roles are: prepare, annotate, trainer"),
        ("spec.overrides", {"trainerImage": "a b"}, "must be an image such as"),
        ("spec.overrides", {"roles": {"trainer": {"env": [{"name": "A B"}]}}}, "letters, digits"),
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
    against = {
        "baselines": [{"name": "production", "uri": "s3://models/judge"}],
        "gates": [{"metric": "Accuracy", "notWorseThan": "production"}],
    }
    assert "created" in dry_run(apiserver, changed("spec.evaluate", against))


@pytest.mark.parametrize("amount", ["lots", "1GB", "-1Gi", "1 Gi", "", -1])
def test_an_amount_that_is_no_quantity_is_refused_in_words_with_its_place(
    apiserver: Kubernetes, amount: str | int
):
    roles = {"rollout": {"resources": {"limits": {"memory": amount}}}}
    with pytest.raises(ClusterError) as refused:
        dry_run(apiserver, changed("spec.overrides", {"roles": roles}))
    said = str(refused.value).replace('"', "")
    if isinstance(amount, int):
        place, words = "roles.rollout.resources.limits.memory", "greater than or equal to 0"
    else:
        place, words = "roles[rollout].resources.limits[memory]", "such as 2, 500m or 16Gi"
    assert f"spec.overrides.{place}: Invalid value: {amount}" in said
    assert words in said
    assert "0-9" not in said, "a pattern is no help"


@pytest.mark.parametrize("amount", ["16Gi", "500m", "1.5", "1e9", 2, 0])
def test_an_amount_as_kubernetes_writes_it_is_accepted(apiserver: Kubernetes, amount: str | int):
    roles = {"rollout": {"resources": {"limits": {"memory": amount}}}}
    assert "created" in dry_run(apiserver, changed("spec.overrides", {"roles": roles}))


def test_an_evaluation_that_would_have_no_model_is_refused(apiserver: Kubernetes):
    job = changed("spec.evaluate.models", ["RL"])
    del job["spec"]["rl"]
    with pytest.raises(ClusterError, match=r"evaluate\.models names only stages .* add Base"):
        dry_run(apiserver, job)


RUNTIME = yaml.safe_load((ROOT / "tests/e2e/manifests/digits/runtime.yaml").read_text())


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("images", {"trainer": "a b", "rollout": "x"}, "must be an image such as"),
        ("images", {"rollout": "x"}, "spec.images.trainer: Required value"),
        ("roles", {"trainers": {}}, "roles are: prepare, annotate, trainer"),
        ("roles", {"trainer": {"sharedMemory": "lots"}}, "spec.roles[trainer].sharedMemory"),
        ("roles", {"trainer": {"caches": [{"claimName": "A_B", "mountPath": "/c"}]}}, "lower-case"),
        ("allowedOverrides", ["image"], "image in allowedOverrides needs allowedImagePrefixes"),
        ("allowedOverrides", ["securityContext"], 'supported values: "resources"'),
        ("serving", {"maxModelLength": 10}, "greater than or equal to 64"),
        ("serving", {"dtype": "float16"}, 'supported values: "float32", "bfloat16"'),
        ("limits", {"workers": 0}, "greater than or equal to 1"),
    ],
)
def test_a_broken_runtime_is_refused_with_the_remedy(
    apiserver: Kubernetes, section: str, value: Any, words: str
):
    # Not the name of a runtime that is there: what is left out would be taken from that one.
    metadata = {"name": "broken"}
    runtime = {**RUNTIME, "metadata": metadata, "spec": {**RUNTIME["spec"], section: value}}
    with pytest.raises(ClusterError) as refused:
        dry_run(apiserver, runtime)
    assert words in str(refused.value)


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
