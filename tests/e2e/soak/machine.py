# SPDX-License-Identifier: Apache-2.0
"""What can be done to the local cluster's machine: signals to containers, stopped daemons."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster import apiserver, cgroups, cluster, layout
from tests.cluster.processes import Supervisor

API_SERVER, KUBELET, S3 = "kube-apiserver", "kubelet", "versitygw"


def kill_first_process(pod: Mapping[str, Any]) -> None:
    """kill -9 of process 1 of a pod's containers; the kernel ends the others with it."""
    for pid in _processes(pod):
        if _pid_inside(pid) == 1:
            _send(pid, signal.SIGKILL)


def crash(pod: Mapping[str, Any]) -> None:
    """SIGABRT to all but process 1, as by a fault in native code: process 1 reports it.

    Raises:
        LookupError: there is no process but the first: it has not started its program yet.
    """
    others = [pid for pid in _processes(pod) if _pid_inside(pid) > 1]
    if not others:
        raise LookupError(f"{pod['metadata']['name']} runs nothing besides its first process")
    for pid in others:
        _send(pid, signal.SIGABRT)


def freeze(pod: Mapping[str, Any]) -> None:
    """SIGSTOP to every process of a pod's containers."""
    for pid in _processes(pod):
        _send(pid, signal.SIGSTOP)


def thaw(pod: Mapping[str, Any]) -> None:
    """SIGCONT; containers that are gone are no error."""
    for pid in _processes(pod):
        _send(pid, signal.SIGCONT)


def freeze_daemon(name: str) -> None:
    """SIGSTOP to one of the cluster's daemons."""
    _signal_daemon(name, signal.SIGSTOP)


def thaw_daemon(name: str) -> None:
    """SIGCONT to one of the cluster's daemons."""
    _signal_daemon(name, signal.SIGCONT)


def restart_api_server() -> None:
    """kill -9, and a new one at once; returns when it is ready."""
    supervisor = Supervisor(layout.CLUSTER)
    supervisor.stop(API_SERVER, grace=0)
    apiserver.start(supervisor, cluster.ADDRESSES)


def stop_s3() -> None:
    """kill -9 of the object store."""
    Supervisor(layout.CLUSTER).stop(S3, grace=0)


def start_s3() -> None:
    """Starts the object store again; one that runs is left alone."""
    cluster.s3_up(Supervisor(layout.CLUSTER))


def _processes(pod: Mapping[str, Any]) -> set[int]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    identities = [s.get("containerID", "").removeprefix("containerd://") for s in statuses]
    return set().union(*(cgroups.container(i) for i in identities if i))


def _pid_inside(pid: int) -> int:
    """The process's id in its own, innermost PID namespace; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def _signal_daemon(name: str, number: signal.Signals) -> None:
    pid = Supervisor(layout.CLUSTER).running(name)
    if pid is not None:
        _send(pid, number)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
