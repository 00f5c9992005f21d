# SPDX-License-Identifier: Apache-2.0
"""`serve-manifest`: what it prints for a finished job, and what it says otherwise."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1reward_api.constants import Stage
from r1reward_api.wire.runconfig import RunConfig
from r1reward_operator import serve_manifest
from tests.unit.plan.simulation import Simulation
from tests.unit.plan.test_golden import FOLDER, with_identity

Finished = tuple[dict[str, Any], dict[str, Any]]


def objects(simulation: Simulation, kind: str = "ClusterR1RewardRuntime") -> Finished:
    """Job and runtime as the API server would give them."""
    meta = {"name": "vlm", "namespace": "team-a", "uid": "job-uid"}
    job = {
        "apiVersion": "r1reward.dev/v1alpha1",
        "kind": "R1RewardJob",
        "metadata": meta,
        "spec": simulation.spec,
        "status": simulation.status,
    }
    runtime = {"kind": kind, "metadata": {"name": "nvidia-h100"}, "spec": simulation.runtime}
    return job, runtime


def finished(simulation: Simulation | None = None) -> Finished:
    simulation = simulation or Simulation()
    simulation.walk_to(Stage.EVALUATE)
    simulation.run()
    simulation.succeed(Stage.EVALUATE)
    return objects(simulation)


def saved(folder: Path, *given: dict[str, Any]) -> Path:
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(given))
    return file


def printed(
    capsys: pytest.CaptureFixture[str], file: Path, *flags: str
) -> tuple[str, dict[str, Any]]:
    serve_manifest.main(["vlm", "-f", str(file), *flags])
    text = capsys.readouterr().out
    return text, {o["kind"]: o for o in yaml.safe_load_all(text)}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        serve_manifest.main(arguments)
    assert capsys.readouterr().out == ""
    return str(ended.value)


@pytest.mark.parametrize("name", ["secret", "identity"])
def test_the_objects_are_exactly_these(name: str, tmp_path: Path, capsys):
    given = finished({"secret": Simulation, "identity": with_identity}[name]())
    _, found = printed(capsys, saved(tmp_path, *given))
    path = FOLDER / f"{name}-serving.json"
    if os.environ.get("R1_UPDATE_GOLDEN"):
        path.write_text(json.dumps(list(found.values()), indent=1, sort_keys=True) + "\n")
    assert list(found.values()) == json.loads(path.read_text())


def test_nobody_owns_them_and_the_operator_does_not_look_at_them(tmp_path: Path, capsys):
    _, found = printed(capsys, saved(tmp_path, *finished()))
    assert set(found) == {"ConfigMap", "NetworkPolicy", "Service", "Deployment"}
    for one in found.values():
        assert "ownerReferences" not in one["metadata"]
        labels = [*one["metadata"]["labels"]]
        if one["kind"] == "Deployment":
            labels += one["spec"]["template"]["metadata"]["labels"]
        assert not [name for name in labels if name.startswith("r1reward.dev/")]
        assert "app.kubernetes.io/managed-by" not in labels


def test_the_weights_are_the_last_stages_and_their_digest_goes_to_the_pod(tmp_path: Path, capsys):
    file = saved(tmp_path, *finished())
    for flags, stage in (((), "rl"), (("--stage", "sft"), "sft")):
        _, found = printed(capsys, file, *flags)
        config = RunConfig.model_validate_json(found["ConfigMap"]["data"]["run.json"])
        (ref,) = config.inputs.values()
        assert (ref.stage, ref.output, ref.digest) == (stage, "weights", f"sha256:{stage}-weights")


def test_clients_reach_the_front_alone_and_only_it_has_their_token(tmp_path: Path, capsys):
    text, found = printed(capsys, saved(tmp_path, *finished()), "--token-secret", "clients")
    assert "create secret generic clients --from-literal=token=" in text
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (volume,) = [v for v in pod["volumes"] if v.get("secret", {}).get("secretName") == "clients"]
    mounting = [
        c["name"]
        for c in (*pod["containers"], *pod["initContainers"])
        if volume["name"] in [m["name"] for m in c["volumeMounts"]]
    ]
    assert mounting == ["front"]
    with_storage = [
        c["name"]
        for c in (*pod["containers"], *pod["initContainers"])
        if any("secretKeyRef" in e.get("valueFrom", {}) for e in c["env"])
    ]
    assert with_storage == ["fetch-model"]
    (rule,) = found["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]
    front = next(c for c in pod["containers"] if c["name"] == "front")
    assert front["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_another_configuration_makes_other_pods(tmp_path: Path, capsys):
    job, runtime = finished()
    _, before = printed(capsys, saved(tmp_path, job, runtime))
    job["spec"]["evaluate"] = {**job["spec"].get("evaluate", {}), "maxNewTokens": 77}
    _, after = printed(capsys, saved(tmp_path, job, runtime))
    digests = [
        o["Deployment"]["spec"]["template"]["metadata"]["annotations"] for o in (before, after)
    ]
    assert digests[0] != digests[1]


def test_a_job_that_has_not_succeeded_is_refused_with_the_remedy(tmp_path: Path, capsys):
    simulation = Simulation()
    simulation.walk_to(Stage.RL)
    file = saved(tmp_path, *objects(simulation))
    said = refused(capsys, "vlm", "-f", str(file))
    assert "has not succeeded (it is" in said
    assert "kubectl wait --for=condition=Succeeded r1rj/vlm --timeout=24h" in said
    assert "--stage sft or --stage rl" in said
    assert "stage rl of job vlm is" in refused(capsys, "vlm", "-f", str(file), "--stage", "rl")
    _, found = printed(capsys, file, "--stage", "sft")
    assert '"sft"' in found["ConfigMap"]["data"]["run.json"]


def test_what_is_missing_is_named(tmp_path: Path, capsys):
    job, runtime = finished()
    other = {**runtime, "metadata": {"name": "other"}}
    for given, arguments, named in (
        ((job, runtime), ("vl", "-f"), "hold no R1RewardJob vl; they hold R1RewardJob vlm"),
        ((job, other), ("vlm", "-f"), "hold no ClusterR1RewardRuntime nvidia-h100"),
        ((job, runtime), ("vlm", "-n", "team-b", "-f"), "is not in namespace team-b"),
        (({**job, "metadata": {"name": "vlm"}}, runtime), ("vlm", "-f"), "metadata.namespace"),
        (({**job, "spec": {}}, runtime), ("vlm", "-f"), "hold no ClusterR1RewardRuntime None"),
    ):
        assert named in refused(capsys, *arguments, str(saved(tmp_path, *given)))
    newer = {**job, "spec": {**job["spec"], "sft": {"newField": 1}}}
    said = refused(capsys, "vlm", "-f", str(saved(tmp_path, newer, runtime)))
    assert "cannot be read: sft.newField: " in said
    assert "release" in said
    assert "\n" not in said
    nowhere = tmp_path / "nowhere.yaml"
    assert "cannot be read" in refused(capsys, "vlm", "-f", str(nowhere))
    assert "--kubeconfig" in refused(capsys, "vlm", "--kubeconfig", str(nowhere))


@pytest.mark.parametrize("program", ["r1reward_operator", "r1reward_trainer"])
def test_both_programs_print_the_same_without_loading_torch(program: str, tmp_path: Path):
    file = saved(tmp_path, *finished())
    command = [sys.executable, "-X", "importtime", "-m", program, "serve-manifest", "vlm"]
    done = subprocess.run(
        [*command, "-f", str(file)],
        env={**os.environ, "PYTHONPATH": "operator:trainer_image"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    kinds = [o["kind"] for o in yaml.safe_load_all(done.stdout)]
    assert kinds == ["ConfigMap", "NetworkPolicy", "Service", "Deployment"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "r1reward_api" in imported
    assert "torch" not in imported
