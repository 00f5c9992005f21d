# SPDX-License-Identifier: Apache-2.0
"""What goes wrong: one row a fault, with what it does and what it may cost.

A fault hits a job, one of its pods, or the whole site. It may last: then `end` takes it back.
Its `reasons` are those by which attempts may end because of it; a fault without reasons must
cost no attempt at all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r1reward_api.constants import LABEL_JOB, Role
from r1reward_api.reasons import Reason
from tests.e2e import digits_job
from tests.e2e.soak import machine
from tests.e2e.soak.site import Site

FREEZE_SERVER_SECONDS = 40.0
"""Less than the liveness probe bears with, more than the readiness probe does."""
FREEZE_OPERATOR_SECONDS = 30.0
"""Twice its lease."""
S3_SECONDS = 30.0
TEACHER_SECONDS = 40.0
FREEZE_NODE_SECONDS = 60.0
"""The node controller gives a silent node up after 40 to 50 seconds."""
SUSPEND_SECONDS = 25.0


@dataclass(frozen=True)
class Target:
    """What a fault hits.

    Attributes:
        job: its name; None: the whole site.
        pod: as Kubernetes shows it; None: none in particular.
    """

    job: str | None = None
    pod: Mapping[str, Any] | None = None

    @property
    def pod_name(self) -> str | None:
        """The pod's name."""
        return None if self.pod is None else self.pod["metadata"]["name"]


Act = Callable[[Site, Target], None]
Candidates = Callable[[Site, Sequence[str]], list[Target]]
"""What a fault could hit now, among these jobs."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: as the result has it.
        candidates: what it could hit.
        begin: does it.
        reasons: by which attempts may end because of it.
        weight: how often it is drawn, against 1 for most.
        seconds: how long it lasts; 0: it is over at once.
        end: takes it back.
    """

    name: str
    candidates: Candidates
    begin: Act
    reasons: frozenset[Reason]
    weight: float = 1.0
    seconds: float = 0.0
    end: Act = lambda site, target: None


NO_LOSS: Final = frozenset[Reason]()
KILLED: Final = frozenset({Reason.INTERRUPTED, Reason.PEER_LOST, Reason.POD_LOST})
"""A killed worker; of its peers one may end first, and their controller takes the rest away."""
GONE: Final = KILLED | {Reason.EVICTED}
SERVERS_GONE: Final = frozenset({Reason.ROLLOUT_UNAVAILABLE, Reason.VERIFIER_UNAVAILABLE})


def pods_of(role: Role | None) -> Candidates:
    """The running pods of a role, or of any."""

    def candidates(site: Site, jobs: Sequence[str]) -> list[Target]:
        pods = site.running_pods(jobs, role)
        return [Target(p["metadata"]["labels"][LABEL_JOB], p) for p in pods]

    return candidates


def each_job(site: Site, jobs: Sequence[str]) -> list[Target]:
    """The jobs that have begun."""
    return [Target(j) for j in jobs if site.status(j).get("startTime")]


def whole_site(site: Site, jobs: Sequence[str]) -> list[Target]:
    """Everything at once."""
    return [Target()]


def leader(site: Site, jobs: Sequence[str]) -> list[Target]:
    """The operator's pod that holds the lease."""
    return [Target(None, p) for p in site.operator_pods()[:1]]


def kill(site: Site, target: Target) -> None:
    """kill -9 of the pod's first process."""
    machine.kill_first_process(_pod(target))


def crash(site: Site, target: Target) -> None:
    """SIGABRT to the pod's program, as by a fault in native code."""
    machine.crash(_pod(target))


def freeze(site: Site, target: Target) -> None:
    """SIGSTOP to the pod's processes."""
    machine.freeze(_pod(target))


def thaw(site: Site, target: Target) -> None:
    """SIGCONT to the pod's processes."""
    machine.thaw(_pod(target))


def delete_pod(site: Site, target: Target) -> None:
    """kubectl delete pod."""
    site.kubectl.run("-n", site.namespace, "delete", "pod", _name(target), "--wait=false")


def evict_pod(site: Site, target: Target) -> None:
    """Eviction, as by a drain."""
    site.evict(_name(target))


def kill_operator(site: Site, target: Target) -> None:
    """The operator's pod goes at once, without a last word."""
    site.kubectl.run(
        "-n", digits_job.SYSTEM_NAMESPACE, "delete", "pod", _name(target), "--grace-period=0",
        "--force",
    )  # fmt: skip


def suspend(site: Site, target: Target) -> None:
    """spec.suspend: true."""
    site.suspend(_job(target), True)


def resume(site: Site, target: Target) -> None:
    """spec.suspend: false."""
    site.suspend(_job(target), False)


def delete_job(site: Site, target: Target) -> None:
    """kubectl delete r1rj, while it runs."""
    site.delete(_job(target))


DELETE_JOB = "delete-job"

FAULTS: tuple[Fault, ...] = (
    Fault("kill-prepare", pods_of(Role.PREPARE), kill, KILLED),
    Fault("kill-annotate", pods_of(Role.ANNOTATE), kill, KILLED),
    Fault("kill-trainer", pods_of(Role.TRAINER), kill, KILLED),
    # Whatever the peers then say of each other, the program that crashed is the reason.
    Fault(
        "crash-trainer",
        pods_of(Role.TRAINER),
        crash,
        frozenset({Reason.PROGRAM_ERROR}),
        weight=0.5,
    ),
    Fault("kill-rollout", pods_of(Role.ROLLOUT), kill, SERVERS_GONE),
    Fault("kill-verifier", pods_of(Role.VERIFIER), kill, SERVERS_GONE),
    Fault("kill-evaluate", pods_of(Role.EVALUATE), kill, KILLED),
    Fault("delete-pod", pods_of(None), delete_pod, GONE | SERVERS_GONE, weight=2),
    Fault("evict-pod", pods_of(None), evict_pod, GONE | SERVERS_GONE),
    Fault(
        "freeze-rollout",
        pods_of(Role.ROLLOUT),
        freeze,
        SERVERS_GONE,
        seconds=FREEZE_SERVER_SECONDS,
        end=thaw,
    ),
    Fault("kill-operator", leader, kill_operator, NO_LOSS, weight=2),
    Fault("freeze-operator", leader, freeze, NO_LOSS, seconds=FREEZE_OPERATOR_SECONDS, end=thaw),
    Fault(
        "restart-api-server",
        whole_site,
        lambda site, target: machine.restart_api_server(),
        NO_LOSS,
    ),
    Fault(
        "stop-s3",
        whole_site,
        lambda site, target: machine.stop_s3(),
        SERVERS_GONE | {Reason.STORAGE_UNAVAILABLE, Reason.PEER_LOST},
        seconds=S3_SECONDS,
        end=lambda site, target: machine.start_s3(),
    ),
    Fault(
        "freeze-kubelet",
        whole_site,
        lambda site, target: machine.freeze_daemon(machine.KUBELET),
        GONE | SERVERS_GONE,
        weight=0.5,
        seconds=FREEZE_NODE_SECONDS,
        end=lambda site, target: machine.thaw_daemon(machine.KUBELET),
    ),
    Fault(
        "break-teacher",
        whole_site,
        lambda site, target: site.break_teacher(TEACHER_SECONDS),
        frozenset({Reason.TEACHER_UNAVAILABLE}),
        seconds=TEACHER_SECONDS,
    ),
    Fault("suspend-job", each_job, suspend, NO_LOSS, seconds=SUSPEND_SECONDS, end=resume),
    Fault(DELETE_JOB, each_job, delete_job, NO_LOSS, weight=0.5),
)

BY_NAME: Final[Mapping[str, Fault]] = {f.name: f for f in FAULTS}


def _pod(target: Target) -> Mapping[str, Any]:
    if target.pod is None:
        raise ValueError(f"this fault hits a pod, and {target} has none")
    return target.pod


def _name(target: Target) -> str:
    return _pod(target)["metadata"]["name"]


def _job(target: Target) -> str:
    if target.job is None:
        raise ValueError(f"this fault hits a job, and {target} has none")
    return target.job
