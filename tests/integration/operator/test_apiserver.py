# SPDX-License-Identifier: Apache-2.0
"""An API server of the test's own, which is stopped and loses its CRDs under a running operator."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from r1reward_api.constants import Stage
from r1reward_operator.kube.client import KubeClient
from r1reward_operator.kube.resources import DEPLOYMENTS, LEASES, PYTORCHJOBS
from r1reward_operator.resources import CHILDREN, CLUSTERR1REWARDRUNTIMES
from tests.cluster import apiserver as api
from tests.cluster import crds
from tests.cluster.ports import free
from tests.cluster.processes import Supervisor
from tests.integration.operator.conftest import NAMESPACES, RUNTIME, SYSTEM
from tests.integration.operator.line import Call
from tests.integration.operator.test_operator_faults import rest, to_rl
from tests.integration.operator.world import World

pytestmark = pytest.mark.full

NAMESPACE = "r1-alone"


class ApiServer:
    """etcd and kube-apiserver, of which the latter can be stopped."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        port, etcd_port, etcd_peer_port = free(3)
        self._addresses = api.Addresses("127.0.0.1", port, etcd_port, etcd_peer_port)
        self.kubernetes = self.start()
        crds.apply(self.kubernetes, [*crds.own(), crds.pytorchjob()])

    def start(self) -> api.Kubernetes:
        """Starts what does not run, on the data that is there."""
        arguments = ["--disable-admission-plugins=ServiceAccount"]
        kubernetes, _ = api.start(self._supervisor, self._addresses, arguments)
        return kubernetes

    def stop(self) -> None:
        """Stops the API server; etcd keeps what it has."""
        self._supervisor.stop("kube-apiserver", grace=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with Supervisor(tmp_path_factory.mktemp("alone"), tied=True) as supervisor:
        yield ApiServer(supervisor)


@pytest.fixture
def alone(server: ApiServer) -> Iterator[World]:
    """A namespace on it with an operator that competes for the lease."""
    client = KubeClient.from_environment(str(server.kubernetes.kubeconfig))
    client.apply(CLUSTERR1REWARDRUNTIMES, yaml.safe_load(Path(RUNTIME).read_text()), "tests")
    for name in (SYSTEM, NAMESPACE):
        client.apply(NAMESPACES, {"metadata": {"name": name}}, "tests")
    world = World(client, client, NAMESPACE)
    world.operator = world.new_operator(leader_elect=True)
    world.operator.start()
    world.eventually("a leader", world.operator.is_leader)
    yield world
    world.stop_operator()


def test_an_api_server_that_is_restarted_is_waited_for_and_nothing_is_made_twice(
    server: ApiServer, alone: World
):
    operator = alone.operator
    assert operator is not None
    to_rl(alone, "stay")
    rest(alone)
    before = alone.everything("stay")
    begun = len(alone.line.calls)
    server.stop()
    alone.eventually("the lease run out", lambda: not operator.is_leader())
    asked = [c for c in alone.line.calls[begun:] if not c.path.endswith("/r1reward-operator")]
    watches = len(CHILDREN) + 4
    assert len(asked) <= watches * 8, "an absent API server is asked in a hot loop"

    server.start()
    alone.eventually("a leader again", operator.is_leader, seconds=60)
    rest(alone)
    assert alone.everything("stay") == before
    lease = alone.client.get(LEASES, SYSTEM, "r1reward-operator")
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] <= 1
    alone.succeed("stay", Stage.RL)
    alone.eventually(
        "its watches go on",
        lambda: alone.stage("stay", Stage.RL).get("phase") == "Succeeded",
        seconds=60,
    )


def test_kinds_that_are_deleted_and_come_back_are_waited_for(server: ApiServer, alone: World):
    kubernetes = server.kubernetes
    to_rl(alone, "kinds")
    written = rest(alone)
    crds.apply(kubernetes, [*crds.own(), crds.pytorchjob()])
    alone.settle()
    assert alone.line.written[written:] == [], "the same CRDs again change nothing"

    # 1. The training operator is removed: the attempt is lost, and the job waits without servers.
    begun = len(alone.line.calls)
    kubernetes.kubectl("delete", "crd", "pytorchjobs.kubeflow.org")
    alone.wait_phase("kinds", Stage.RL, "Retrying", 1)
    listing = Call("GET", PYTORCHJOBS.path(NAMESPACE))
    alone.eventually("its absence known", lambda: listing in alone.line.calls[begun:])
    for pod in alone.pods("kinds", Stage.RL, 1):
        alone.delete_pod(pod)
    alone.clock.advance(600)
    alone.settle()
    blocked = alone.eventually(
        "Blocked",
        lambda: (c := alone.condition("kinds", "Blocked"))["reason"] == "Dependency" and c,
        seconds=60,
    )
    assert "install the Kubeflow training operator" in blocked["message"]
    servers = [d["metadata"]["name"] for d in alone.client.list(DEPLOYMENTS, NAMESPACE)["items"]]
    assert [name for name in servers if name.startswith("kinds-")] == []
    stage = alone.stage("kinds", Stage.RL)
    assert (stage["programFailures"], stage["infrastructureFailures"]) == (0, 1)

    # 2. It is installed again, and the job goes on by itself.
    crds.apply(kubernetes, [crds.pytorchjob()])
    alone.eventually(
        "attempt 2", lambda: alone.stage("kinds", Stage.RL).get("attempt") == 2, seconds=90
    )
    alone.serve("kinds", Stage.RL, 2)
    alone.run("kinds", Stage.RL, 2)
    alone.wait_phase("kinds", Stage.RL, "Running", 2)

    # 3. Our own CRD is removed, and all jobs with it: the operator rests until it is back.
    kubernetes.kubectl("delete", "crd", "r1rewardjobs.r1reward.dev")
    written = alone.writes()
    crds.apply(kubernetes, crds.own())
    assert alone.line.written[written:] == []
    alone.eventually("the kind served", lambda: _serves(alone), seconds=60)
    alone.create("anew", annotate=None, sft=None)
    alone.eventually(
        "a first attempt", lambda: alone.stage("anew", Stage.PREPARE).get("attempt"), seconds=60
    )


def _serves(world: World) -> bool:
    return world.client.list(CLUSTERR1REWARDRUNTIMES)["items"] != []
