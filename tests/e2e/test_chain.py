# SPDX-License-Identifier: Apache-2.0
"""One small job goes through the whole chain while the operator is killed in every stage."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.e2e import digits_job, watch
from tests.e2e.connection import Connection
from tests.e2e.demo import download_report
from tests.e2e.figures import figures
from tests.e2e.kubectl import Kubectl
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.timeout(2400)
NAME = "chain"
SMALL: dict[str, Any] = {
    # Another order of the answers in each session: nothing comes from an earlier one's cache.
    "data": {"seed": int(time.time()) % 2**31},
    "annotate": {"maxRows": 160},
    "sft": {"maxSteps": 40, "checkpoint": {"everySteps": 20}},
    "rl": {
        "maxSteps": 4,
        "sampling": {"promptsPerStep": 32},
        "miniBatchSize": 16,
        "microBatchSize": 16,
        "checkpoint": {"everySteps": 2},
    },
    "evaluate": {"maxRows": 16, "votes": [1, 3], "bootstrapSamples": 200},
}
CHAIN_SECONDS = 1500


def get(kubectl: Kubectl, name: str) -> dict[str, Any]:
    return kubectl.json("-n", digits_job.NAMESPACE, "get", "r1rj", name)


def kill_operator(kubectl: Kubectl) -> None:
    kubectl.run(
        "-n", digits_job.SYSTEM_NAMESPACE, "delete", "pod", "--grace-period=0", "--force",
        "-l", "app.kubernetes.io/name=r1reward-operator",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(cluster: Connection) -> dict[str, Any]:
    """The job after it ended; the operator was killed once while each stage ran."""
    kubectl = cluster.kubectl
    kubectl.run("-n", digits_job.NAMESPACE, "delete", "r1rj", NAME, "--ignore-not-found")
    kubectl.apply(digits_job.digits_job(NAME, **SMALL), namespace=digits_job.NAMESPACE)
    killed: set[str] = set()

    def step() -> dict[str, Any] | None:
        job = get(kubectl, NAME)
        status = job.get("status", {})
        for stage in status.get("stages", []):
            if stage["phase"] == "Running" and stage["name"] not in killed:
                kill_operator(kubectl)
                killed.add(stage["name"])
        ended = watch.is_true(status, "Succeeded") or watch.is_true(status, "Failed")
        return job if ended else None

    job = wait_for("the chain's end", step, CHAIN_SECONDS)
    job["killedIn"] = sorted(killed)
    return job


def test_the_chain_succeeds_although_the_operator_was_killed_in_every_stage(
    finished: Mapping[str, Any], cluster: Connection
):
    status = finished["status"]
    assert watch.is_true(status, "Succeeded"), status["conditions"]
    ran = [s["name"] for s in status["stages"] if s["attempt"]]
    assert finished["killedIn"] == sorted(ran)
    assert {
        s["name"]: (s["phase"], s["attempt"]) for s in status["stages"] if s["name"] in ran
    } == dict.fromkeys(ran, ("Succeeded", 1))
    cluster.kubectl.run(
        "-n", digits_job.NAMESPACE, "wait", "--for=condition=Succeeded", f"r1rj/{NAME}",
        "--timeout=5s",
    )  # fmt: skip


def test_a_finished_job_holds_no_pod_service_or_trainer(
    finished: Mapping[str, Any], cluster: Connection
):
    selector = f"r1reward.dev/job={NAME}"

    def left() -> list[str]:
        found = cluster.kubectl.json(
            "-n", digits_job.NAMESPACE, "get", "deployments,services,pytorchjobs", "-l", selector
        )
        names = [f"{o['kind']}/{o['metadata']['name']}" for o in found["items"]]
        pods = cluster.kubectl.json("-n", digits_job.NAMESPACE, "get", "pods", "-l", selector)
        running = [p for p in pods["items"] if p["status"]["phase"] in ("Pending", "Running")]
        servers = [n for n in names if not n.startswith("PyTorchJob/")]
        return [*servers, *(p["metadata"]["name"] for p in running)]

    wait_for("services and pods gone", lambda: not left(), 120)


def test_the_reports_figures_are_those_of_the_predictions_in_storage(
    finished: Mapping[str, Any], cluster: Connection, tmp_path: Path
):
    report = download_report(cluster, finished["status"], tmp_path)
    text = report.read_text()
    assert "http://" not in text.split("</style>", 1)[0]
    report_json = json.loads((tmp_path / "report.json").read_text())
    predictions = next(a for a in finished["status"]["artifacts"] if a["name"] == "predictions")
    rows = _predictions(cluster, predictions["uri"], tmp_path)
    for model in ("base", "sft", "rl"):
        again = figures([row for row in rows if row["model"] == model])
        told = report_json["models"][model]
        told = {**told, "accuracy": told["accuracy"]["value"]}
        assert {name: told[name] for name in again} == pytest.approx(again)


def _predictions(cluster: Connection, uri: str, folder: Path) -> list[dict[str, Any]]:
    from r1reward_trainer.storage.s3 import Store

    store = Store.from_env(uri)
    rows: list[dict[str, Any]] = []
    for found in store.list(""):
        if found.key.endswith(".parquet"):
            path = folder / Path(found.key).name
            store.get_file(found.key, path)
            rows += pq.read_table(path).to_pylist()
    assert rows
    return rows


def test_a_second_job_that_changes_only_rl_takes_the_rest_from_the_cache_and_deletes_cleanly(
    finished: Mapping[str, Any], cluster: Connection
):
    kubectl = cluster.kubectl
    other = f"{NAME}-rl"
    rl = {**SMALL["rl"], "seed": 1}
    kubectl.apply(
        digits_job.digits_job(other, **{**SMALL, "rl": rl}), namespace=digits_job.NAMESPACE
    )

    def stages() -> dict[str, Any] | None:
        status = get(kubectl, other).get("status", {})
        found = {s["name"]: s for s in status.get("stages", [])}
        return found if found.get("rl", {}).get("phase") in ("Starting", "Running") else None

    try:
        found = wait_for("the second job's rl", stages, 300)
        hits = {n: s.get("cacheHit", False) for n, s in found.items()}
        assert hits == {
            "prepare": True, "annotate": True, "sft": True, "rl": False, "evaluate": False,
        }  # fmt: skip
    finally:
        kubectl.run("-n", digits_job.NAMESPACE, "delete", "r1rj", other, "--timeout=60s")

    def children() -> list[Any]:
        kinds = "pods,deployments,services,jobs,pytorchjobs,configmaps,secrets,controllerrevisions"
        return kubectl.json(
            "-n", digits_job.NAMESPACE, "get", kinds, "-l", f"r1reward.dev/job={other}"
        )["items"]

    wait_for("the deleted job's children gone", lambda: not children(), 180)


def test_applying_a_finished_job_again_changes_nothing(
    finished: Mapping[str, Any], cluster: Connection
):
    before = get(cluster.kubectl, NAME)
    cluster.kubectl.apply(digits_job.digits_job(NAME, **SMALL), namespace=digits_job.NAMESPACE)
    kill_operator(cluster.kubectl)
    digits_job.wait_for_operator(cluster.kubectl)
    after = get(cluster.kubectl, NAME)
    assert after["status"] == before["status"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
