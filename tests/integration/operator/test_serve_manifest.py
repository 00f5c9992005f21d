# SPDX-License-Identifier: Apache-2.0
"""`serve-manifest` reads job and runtime from an API server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from r1reward_api.constants import Stage
from r1reward_operator import serve_manifest
from tests.cluster.apiserver import Kubernetes
from tests.unit.plan.simulation import EXAMPLE, RUNTIME, Simulation

NAMESPACE = "serving"


@pytest.fixture
def job(apiserver: Kubernetes) -> Iterator[str]:
    """A finished job's name; its status is what the operator would write."""
    simulation = Simulation()
    simulation.walk_to(Stage.EVALUATE)
    simulation.run()
    simulation.succeed(Stage.EVALUATE)
    given = yaml.safe_load(EXAMPLE.read_text())
    name = given["metadata"]["name"]
    given["metadata"] = {"name": name, "namespace": NAMESPACE}
    apiserver.kubectl("create", "namespace", NAMESPACE)
    apiserver.kubectl("apply", "-f", str(RUNTIME))
    apiserver.kubectl("apply", "-f", "-", stdin=json.dumps(given))
    patch = json.dumps({"status": simulation.status})
    where = ("-n", NAMESPACE, "patch", "r1rj", name, "--subresource=status", "--type=merge")
    apiserver.kubectl(*where, "-p", patch)
    yield name
    apiserver.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_a_finished_jobs_manifest_is_accepted_by_the_server_it_was_read_from(
    apiserver: Kubernetes,
    operator_kubeconfig: Path,
    job: str,
    capsys: pytest.CaptureFixture[str],
):
    # In the operator's pod it has the rights of the operator.
    where = ["--kubeconfig", str(operator_kubeconfig), "-n", NAMESPACE]
    serve_manifest.main([job, *where])
    printed = capsys.readouterr().out
    accepted = apiserver.kubectl(
        "apply", "--dry-run=server", "-o", "name", "-f", "-", stdin=printed
    )
    assert len(accepted.split()) == 4
    with pytest.raises(SystemExit, match=f"there is no R1RewardJob other in namespace {NAMESPACE}"):
        serve_manifest.main(["other", *where])
