# SPDX-License-Identifier: Apache-2.0
"""What the machine must have before the cluster starts; each lack is one line with its remedy."""

import ipaddress
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.cluster import layout
from tests.cluster.errors import ClusterError
from tests.cluster.shell import run, succeeds

PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "ss": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""Commands (or files) and the Debian packages that bring them."""
APT_DEADLINE = 600.0
MEMORY = 6 << 30
DISK = 8 << 30
LONGEST_CHECKOUT = 60
"""Sockets below the checkout must fit into 107 bytes."""
PORTS = {
    layout.API_PORT: "kube-apiserver",
    layout.KUBELET_PORT: "kubelet",
    layout.S3_PORT: "versitygw",
    layout.DNS_PORT: "coredns",
    layout.ETCD_PORT: "etcd",
    layout.ETCD_PEER_PORT: "etcd",
}
LOOPBACK = {"etcd": "127.0.0.1"}
"""The others listen on the bridge's address."""


def check(running: set[str]) -> None:
    """Raises `ClusterError` with everything that is missing.

    `running` names the cluster's own daemons that run already: their ports and
    memory are taken rightly.
    """
    if os.geteuid() != 0:
        raise ClusterError(
            "the local cluster mounts file systems and makes network namespaces: run as root "
            "(sudo make …), or use a cluster that you have (CLUSTER=current or CLUSTER=kind)"
        )
    install_packages(PACKAGES)
    lacks = [*_space(running), *_path(), *_namespaces(), *_ports(running), *_addresses()]
    if lacks:
        raise ClusterError("\n".join(lacks))


def install_packages(packages: Mapping[str, str]) -> None:
    """Installs the Debian packages whose commands (or files) are missing.

    Raises:
        ClusterError: without apt-get.
    """
    missing = sorted({package for need, package in packages.items() if not _there(need)})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"install these with your package manager: {' '.join(missing)}")
    print(f"installing Debian packages: {' '.join(missing)}", flush=True)
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq")
    run(*apt, "update", deadline=APT_DEADLINE)
    run(*apt, "install", "-y", "--no-install-recommends", *missing, deadline=APT_DEADLINE)


def _there(need: str) -> bool:
    return Path(need).exists() if need.startswith("/") else shutil.which(need) is not None


def _space(running: set[str]) -> Iterator[str]:
    memory = int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) << 10
    if memory < MEMORY and not running:
        yield (
            f"{memory / 2**30:.1f} GiB of memory are free, {MEMORY >> 30} are needed: end something"
        )
    free = shutil.disk_usage(layout.REPOSITORY).free
    if free < DISK and not running:
        yield (
            f"{free / 2**30:.1f} GiB are free on the disk of {layout.REPOSITORY}, "
            f"{DISK >> 30} are needed: delete something"
        )


def _path() -> Iterator[str]:
    path = str(layout.REPOSITORY)
    if len(path) > LONGEST_CHECKOUT:
        yield (
            f"the checkout's path {path} is longer than {LONGEST_CHECKOUT} characters, too long "
            "for the kubelet's sockets: move the checkout"
        )


def _namespaces() -> Iterator[str]:
    if not succeeds("unshare", "--mount", "--net", "--pid", "--fork", "true"):
        yield (
            "this container may not make namespaces: run it privileged, or use a cluster that "
            "you have (CLUSTER=current)"
        )


def _ports(running: set[str]) -> Iterator[str]:
    for line in run("ss", "-Hltnp").splitlines():
        local = line.split()[3]
        address, _, port = local.rpartition(":")
        owner = PORTS.get(int(port))
        if owner is None or owner in running:
            continue
        if address in {"0.0.0.0", "*", "[::]", LOOPBACK.get(owner, layout.BRIDGE_ADDRESS)}:
            found = re.search(r'\(\("([^"]+)",pid=(\d+)', line)
            who = f"{found[1]} (pid {found[2]})" if found else "somebody"
            yield f"{who} listens on {local}, which {owner} needs: end it"


def _addresses() -> Iterator[str]:
    pods = ipaddress.ip_network(layout.POD_CIDR)
    for route in json.loads(run("ip", "-j", "-4", "route")):
        if route["dst"] == "default" or route.get("dev") == layout.BRIDGE:
            continue
        if ipaddress.ip_network(route["dst"], strict=False).overlaps(pods):
            yield f"the route to {route['dst']} over {route.get('dev')} overlaps {pods}: remove it"
