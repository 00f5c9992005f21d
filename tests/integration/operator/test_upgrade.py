# SPDX-License-Identifier: Apache-2.0
"""An upgrade in which the CRD is there and the new operator is not, on a real API server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from r1reward_api.constants import Stage
from tests.cluster.apiserver import Kubernetes
from tests.integration.operator.test_lifecycle import to_rl
from tests.integration.operator.world import World

FIELD = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/evaluate/properties/x"


@contextmanager
def newer_crd(apiserver: Kubernetes) -> Iterator[None]:
    """The CRD with one more field, whose default appears in every job that is there."""

    def patch(operation: dict[str, object]) -> None:
        apiserver.kubectl(
            "patch", "crd", "r1rewardjobs.r1reward.dev", "--type=json",
            "-p", json.dumps([{"path": FIELD, **operation}]),
        )  # fmt: skip

    patch({"op": "add", "value": {"type": "string", "default": "y"}})
    try:
        yield
    finally:
        patch({"op": "remove"})


def test_a_running_job_waits_for_the_operator_of_its_crd_and_loses_nothing(
    world: World, apiserver: Kubernetes
):
    to_rl(world, "upgrade")
    world.settle()
    before = world.everything("upgrade")
    with newer_crd(apiserver):
        # The API server serves a changed CRD a moment later.
        world.eventually("the field", lambda: "x" in world.job("upgrade")["spec"]["evaluate"])
        # Watches that are open keep the old schema for a while; a restart sees the new one.
        world.stop_operator()
        world.start_operator()
        world.eventually(
            "Blocked", lambda: world.condition("upgrade", "Blocked")["status"] == "True"
        )
        blocked = world.condition("upgrade", "Blocked")
        assert blocked["reason"] == "Dependency"
        assert "spec.evaluate.x: of a newer CRD; upgrade the operator" in blocked["message"]
        assert world.condition("upgrade", "Failed")["status"] == "False"
        assert world.stage("upgrade", Stage.RL)["phase"] == "Running"
        kept = world.everything("upgrade")
        job = "r1rewardjobs.r1reward.dev/upgrade"
        assert {k: v for k, v in kept.items() if k != job} == {
            k: v for k, v in before.items() if k != job
        }
    world.eventually("no field", lambda: "x" not in world.job("upgrade")["spec"]["evaluate"])
    world.stop_operator()
    world.start_operator()
    world.eventually("free", lambda: world.condition("upgrade", "Blocked")["status"] == "False")
    world.succeed("upgrade", Stage.RL)
    world.wait_phase("upgrade", Stage.EVALUATE, "Starting", 1)
