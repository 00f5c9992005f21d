# SPDX-License-Identifier: Apache-2.0
"""The local cluster, from nothing to ready, and back."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tests.cluster import (
    apiserver,
    binaries,
    bytecode,
    containerd,
    control_plane,
    images,
    kubelet,
    layout,
    network,
    ownership,
    preflight,
    refresh,
    s3,
    teardown,
    training_operator,
)
from tests.cluster.apiserver import Kubernetes
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Supervisor

T = TypeVar("T")

ADDRESSES = apiserver.Addresses(
    host=layout.BRIDGE_ADDRESS,
    port=layout.API_PORT,
    etcd_port=layout.ETCD_PORT,
    etcd_peer_port=layout.ETCD_PEER_PORT,
    names=(
        layout.KUBERNETES_SERVICE,
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{layout.CLUSTER_DOMAIN}",
    ),
    service_cidr=layout.SERVICE_CIDR,
)


def up() -> Kubernetes:
    """Brings the cluster up; what runs already is left alone, so it may be interrupted
    and run again.

    Raises:
        ClusterError: saying what is missing on the machine, or which part died and why.
    """
    begin = time.monotonic()
    ownership.refuse_second()
    supervisor = Supervisor(layout.CLUSTER)
    running = {name for name in supervisor.names() if supervisor.running(name)}
    preflight.check(running)
    binaries.build_all()
    if not {"kubelet", "containerd"} <= running:
        _clean_up_after_a_kill()
    ownership.claim()
    layout.CLUSTER.mkdir(mode=0o755, exist_ok=True)
    network.up()
    official = training_operator.rendered()
    with ThreadPoolExecutor() as pool:
        storage = pool.submit(_timed, "S3", lambda: s3_up(supervisor))
        node = pool.submit(_timed, "containerd and images", lambda: _node(supervisor, official))
        kubernetes, authority = _timed("API server", lambda: apiserver.start(supervisor, ADDRESSES))
        kubelet.start_proxy(supervisor, kubernetes, authority)
        dns = pool.submit(
            _timed,
            "DNS",
            lambda: control_plane.start_dns(supervisor, kubernetes, authority),
        )
        installed = pool.submit(training_operator.apply, kubernetes, official)
        _timed(
            "controllers",
            lambda: control_plane.start_controllers(supervisor, kubernetes, authority),
        )
        changed = node.result()
        _timed("node", lambda: kubelet.start_kubelet(supervisor, kubernetes, authority))
        for part in (installed, dns, storage):
            part.result()
    _timed("training operator", lambda: training_operator.wait(supervisor, kubernetes))
    refresh.restart_changed(kubernetes, changed)
    supervisor.check()
    print(f"the cluster is up ({time.monotonic() - begin:.0f} s): KUBECONFIG={layout.KUBECONFIG}")
    return kubernetes


def s3_up(supervisor: Supervisor) -> dict[str, str]:
    """The cluster's object store, which pods reach at the node's address."""
    return s3.start(supervisor, layout.BRIDGE_ADDRESS, layout.S3_PORT, layout.BUCKET)


def load_images() -> list[str]:
    """Imports the images whose sources changed; returns their names."""
    if Supervisor(layout.CLUSTER).running("containerd") is None:
        raise ClusterError("there is no local cluster: `make cluster-up` first")
    return _load(training_operator.rendered())


def down() -> None:
    """Stops the cluster; its objects and its bucket are there again after the next `up`."""
    ownership.refuse_second()
    teardown.stop(layout.CLUSTER)
    teardown.forget()


def clean() -> None:
    """Stops the cluster and removes everything but the built programs."""
    down()
    teardown.remove(layout.CLUSTER)
    with suppress(FileNotFoundError):  # never made, or gone with the machine's last boot
        layout.RUN.rmdir()


def status() -> bool:
    """Prints each part's state, and the last lines of a dead one; True if all run."""
    ownership.refuse_second()
    supervisor = Supervisor(layout.CLUSTER)
    whole = True
    for name in sorted(teardown.ORDER):
        pid = supervisor.running(name)
        whole &= pid is not None
        state = f"pid {pid:<8} {_memory(pid):5.0f} MiB" if pid else "not running"
        print(f"{name:24} {state}")
    if dead := supervisor.dead():
        print("\n" + "\n".join(map(supervisor.last_words, dead)))
    if whole:
        kubernetes = Kubernetes("", layout.KUBECONFIG, Path())
        print(kubernetes.kubectl("get", "nodes", "-o", "wide"), end="")
        print(kubernetes.kubectl("get", "pods", "-A", "-o", "wide"), end="")
        print(f"export KUBECONFIG={layout.KUBECONFIG}   # S3: {layout.S3_ENV}")
    return whole


def _node(supervisor: Supervisor, official: str) -> list[str]:
    bytecode.compile_environment()
    containerd.start(supervisor)
    return _load(official)


def _load(official: str) -> list[str]:
    return images.load(images.images(training_operator.image(official)))


def _clean_up_after_a_kill() -> None:
    other = ownership.other_checkout()
    if other is not None:
        teardown.stop(other)
    teardown.stop(layout.CLUSTER)


def _memory(pid: int) -> float:
    """Resident MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _timed(what: str, step: Callable[[], T]) -> T:
    begin = time.monotonic()
    result = step()
    print(f"{what}: ready after {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
    return result
