# SPDX-License-Identifier: Apache-2.0
"""Real servers for the tests that ask for them, one of each a session.

They listen on loopback at free ports and end with the test process, however
it ends.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster import apiserver as api
from tests.cluster import crds
from tests.cluster import s3 as object_store
from tests.cluster.layout import BUCKET
from tests.cluster.ports import free
from tests.cluster.processes import Supervisor


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Kubernetes]:
    """etcd and kube-apiserver with our CRDs and PyTorchJob's; no controllers."""
    supervisor = Supervisor(tmp_path_factory.mktemp("apiserver"), tied=True)
    with supervisor:
        port, etcd_port, etcd_peer_port = free(3)
        kubernetes, _ = api.start(
            supervisor,
            api.Addresses("127.0.0.1", port, etcd_port, etcd_peer_port),
            # No controller makes default service accounts here.
            ["--disable-admission-plugins=ServiceAccount"],
        )
        crds.apply(kubernetes, [*crds.own(), crds.pytorchjob()])
        yield kubernetes


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of a real S3 server with one bucket, `R1_BUCKET`."""
    supervisor = Supervisor(tmp_path_factory.mktemp("s3"), tied=True)
    with supervisor:
        (port,) = free(1)
        yield object_store.start(supervisor, "127.0.0.1", port, BUCKET)


StartS3 = Callable[[object_store.Variant], dict[str, str]]


@pytest.fixture(scope="module")
def start_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartS3]:
    """Starts S3 servers that are not as the usual one; they end with the module."""
    with ExitStack() as stack:

        def start(variant: object_store.Variant) -> dict[str, str]:
            supervisor = Supervisor(tmp_path_factory.mktemp("s3"), tied=True)
            stack.enter_context(supervisor)
            (port,) = free(1)
            return object_store.start(supervisor, "127.0.0.1", port, BUCKET, variant)

        yield start
