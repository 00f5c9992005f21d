# SPDX-License-Identifier: Apache-2.0
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from r1reward_operator.kube.client import KubeClient, Resource
from r1reward_operator.resources import CLUSTERR1REWARDRUNTIMES
from tests.cluster.apiserver import Kubernetes
from tests.integration.operator.world import World

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
RUNTIME = Path("tests/e2e/manifests/digits/runtime.yaml")
ACCOUNT = "r1reward-operator"
SYSTEM = "r1reward-system"


@pytest.fixture(scope="session")
def client(apiserver: Kubernetes) -> KubeClient:
    """A client of the real API server, as an administrator."""
    client = KubeClient.from_environment(str(apiserver.kubeconfig))
    client.apply(CLUSTERR1REWARDRUNTIMES, yaml.safe_load(RUNTIME.read_text()), "tests")
    return client


@pytest.fixture(scope="session")
def operator_kubeconfig(
    apiserver: Kubernetes, client: KubeClient, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A kubeconfig with the rights of the operator's service account, and no more."""
    client.apply(NAMESPACES, {"metadata": {"name": SYSTEM}}, "tests")
    apiserver.kubectl("apply", "-k", "manifests/rbac")
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{ACCOUNT}/token"
    answer = client.post(path, {"spec": {"expirationSeconds": 7200}})
    config = yaml.safe_load(apiserver.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": answer["status"]["token"]}
    file = tmp_path_factory.mktemp("operator") / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="session")
def operator_client(operator_kubeconfig: Path) -> KubeClient:
    """A client of the operator's account."""
    return KubeClient.from_environment(str(operator_kubeconfig))


@pytest.fixture
def worlds(client: KubeClient, operator_client: KubeClient) -> Iterator[Callable[[], World]]:
    """Makes namespaces under Pod Security `restricted` with the means to play their pods."""
    made: list[World] = []

    def make() -> World:
        namespace = f"r1-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        client.create(NAMESPACES, {"metadata": {"name": namespace, "labels": labels}})
        made.append(World(client, operator_client, namespace))
        return made[-1]

    yield make
    for world in made:
        world.stop_operator()


@pytest.fixture
def world(worlds: Callable[[], World]) -> World:
    """A namespace with an operator of its own."""
    world = worlds()
    world.start_operator()
    return world
