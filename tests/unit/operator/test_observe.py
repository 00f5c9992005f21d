# SPDX-License-Identifier: Apache-2.0
"""What counts as known of a job."""

from typing import Any

import pytest

from r1reward_api.constants import LABEL_JOB_UID
from r1reward_operator.kube.resources import CONTROLLERREVISIONS
from r1reward_operator.observe import observe
from r1reward_operator.observed import Observed
from r1reward_operator.stores import Stores
from tests.unit.plan.simulation import example_runtime, example_spec

UID = "u1"
VERSION_2 = {"resourceVersion": "2"}


def put(stores: Stores, kind: str, namespace: str, name: str, **parts: Any) -> None:
    """Takes an object into the store of its kind."""
    store = {
        "R1RewardJob": stores.jobs,
        "ClusterR1RewardRuntime": stores.cluster_runtimes,
        "ControllerRevision": stores.children[CONTROLLERREVISIONS],
        "Pod": stores.pods,
    }[kind]
    metadata = {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1"}
    store.upsert({"kind": kind, **parts, "metadata": {**metadata, **parts.get("metadata", {})}})


def look(stores: Stores, spec: dict[str, Any] | None = None) -> Observed:
    """What is known of the example job."""
    put(stores, "R1RewardJob", "a", "job", metadata={"uid": UID}, spec=spec or example_spec())
    observed = observe(stores, "a", "job")
    assert observed is not None
    return observed


@pytest.mark.parametrize("kind", ["ControllerRevision", "Pod"])
def test_what_names_the_job_from_another_namespace_is_none_of_its(kind: str):
    stores = Stores()
    owner = {"kind": "R1RewardJob", "name": "job", "uid": UID, "controller": True}
    claims = {"ownerReferences": [owner], "labels": {LABEL_JOB_UID: UID}}
    put(stores, kind, "a", "job-rl-1", metadata={**claims, "uid": "ours"})
    put(stores, kind, "b", "job-rl-1", metadata={**claims, "uid": "theirs"})
    observed = look(stores)
    found = (*observed.children, *observed.pods)
    assert [o["metadata"]["uid"] for o in found] == ["ours"]


def test_a_runtime_of_a_newer_crd_is_waited_for_and_one_that_is_wrong_is_not():
    stores = Stores()
    newer = {**example_runtime(), "fresh": 1, "limits": {"newest": 2}}
    put(stores, "ClusterR1RewardRuntime", "", "nvidia-h100", spec=newer)
    runtime = look(stores).runtime
    assert (runtime.spec, runtime.waiting) == (None, True)
    assert "spec.limits.newest, spec.fresh: of a newer CRD; upgrade the operator" in runtime.problem

    wrong = {**newer, "limits": {"workers": 0}}
    put(stores, "ClusterR1RewardRuntime", "", "nvidia-h100", metadata=VERSION_2, spec=wrong)
    runtime = look(stores).runtime
    assert (runtime.spec, runtime.waiting) == (None, False)
    assert "spec.limits.workers: " in runtime.problem
