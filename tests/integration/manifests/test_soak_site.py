# SPDX-License-Identifier: Apache-2.0
"""How the soak speaks to a real API server: its jobs, and what it does to them."""

import json
import uuid

import pytest

from r1reward_api.constants import LABEL_JOB, LABEL_ROLE, Role
from tests.cluster import apiserver as api
from tests.cluster.binaries import kubectl
from tests.cluster.pods import pod, pod_spec
from tests.e2e import digits_job
from tests.e2e.connection import Connection
from tests.e2e.kubectl import Kubectl
from tests.e2e.soak.faults import BY_NAME, Target, pods_of
from tests.e2e.soak.jobs import runtime, small_job
from tests.e2e.soak.site import Site


@pytest.fixture
def site(apiserver: api.Kubernetes) -> Site:
    """A namespace of the test's own."""
    connection = Connection(Kubectl(str(kubectl()), apiserver.kubeconfig), {})
    namespace = f"soak-{uuid.uuid4().hex[:8]}"
    where = digits_job.load("digits/namespace.yaml")
    where["metadata"]["name"] = namespace
    connection.kubectl.apply(where)
    return Site(connection, namespace)


def make_running_pod(site: Site, name: str, job: str, role: Role) -> None:
    made = pod(name, pod_spec(["sleep", "9"]))
    made["metadata"]["labels"] = {LABEL_JOB: job, LABEL_ROLE: role.value}
    made["spec"]["automountServiceAccountToken"] = False
    made["spec"]["nodeName"] = "nowhere"  # a pod without a node goes at once
    site.apply(made)
    status = json.dumps({"status": {"phase": "Running"}})
    site.kubectl.run(
        "-n", site.namespace, "patch", "pod", name, "--subresource=status", "--type=merge", "-p",
        status,
    )  # fmt: skip


def test_jobs_and_runtime_are_accepted_suspended_resumed_and_deleted(site: Site):
    site.kubectl.apply(runtime())
    site.apply(small_job("soak-01", seed=1))
    BY_NAME["suspend-job"].begin(site, Target("soak-01"))
    assert (site.get("soak-01") or {})["spec"]["suspend"] is True
    BY_NAME["suspend-job"].end(site, Target("soak-01"))
    assert (site.get("soak-01") or {})["spec"]["suspend"] is False
    assert BY_NAME["suspend-job"].candidates(site, ["soak-01"]) == []  # it has not begun
    BY_NAME["delete-job"].begin(site, Target("soak-01"))
    assert site.get("soak-01") is None
    assert site.status("soak-01") == {}


def test_faults_find_the_pods_of_their_role_and_leave_out_what_is_going(site: Site):
    make_running_pod(site, "soak-01-rl-1-worker-0", "soak-01", Role.TRAINER)
    make_running_pod(site, "soak-01-rl-1-rollout-x", "soak-01", Role.ROLLOUT)
    make_running_pod(site, "soak-02-sft-1-worker-0", "soak-02", Role.TRAINER)
    found = pods_of(Role.TRAINER)(site, ["soak-01", "soak-02"])
    assert [(t.job, t.pod_name) for t in found] == [
        ("soak-01", "soak-01-rl-1-worker-0"),
        ("soak-02", "soak-02-sft-1-worker-0"),
    ]
    assert [o["metadata"]["name"] for o in site.objects("soak-01")] == [
        "soak-01-rl-1-rollout-x",
        "soak-01-rl-1-worker-0",
    ]
    BY_NAME["delete-pod"].begin(site, found[0])
    BY_NAME["evict-pod"].begin(site, found[1])
    assert pods_of(Role.TRAINER)(site, ["soak-01", "soak-02"]) == []
    assert [t.pod_name for t in pods_of(None)(site, ["soak-01"])] == ["soak-01-rl-1-rollout-x"]
    evicted = site.kubectl.json("-n", site.namespace, "get", "pod", "soak-02-sft-1-worker-0")
    conditions = {c["type"]: c["reason"] for c in evicted["status"]["conditions"]}
    assert conditions["DisruptionTarget"] == "EvictionByEvictionAPI"
