# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from r1reward_operator.kube.bucket import TokenBucket
from r1reward_operator.kube.client import KubeClient, Resource
from r1reward_operator.kube.errors import Conflict, Invalid, NotFound, NotLeader, OwnedByAnother
from r1reward_operator.kube.reflector import Reflector
from r1reward_operator.kube.resources import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    DEPLOYMENTS,
    SECRETS,
    SERVICES,
)
from r1reward_operator.kube.store import Store
from r1reward_operator.kube.writer import APPLIED_HASH, Writer
from tests.integration.kube.waiting import eventually

OWNER = {
    "apiVersion": "r1reward.dev/v1alpha1",
    "kind": "R1RewardJob",
    "name": "job",
    "uid": "11111111-1111-1111-1111-111111111111",
    "controller": True,
}
OTHER_OWNER = {**OWNER, "name": "other", "uid": "22222222-2222-2222-2222-222222222222"}
EARLIER_OWNER = {**OWNER, "uid": "33333333-3333-3333-3333-333333333333"}


class CountingClient(KubeClient):
    """The real client, counting what it sends that may write."""

    writes = 0

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        if method != "GET":
            self.writes += 1
        return super()._call(method, path, **options)


@pytest.fixture
def counting(client: KubeClient) -> CountingClient:
    return CountingClient(client._transport)


def writer(client: KubeClient, **options: Any) -> Writer:
    return Writer(client, TokenBucket(1000.0, 1000), "test-manager", **options)


def configmap(namespace: str, name: str = "c", *, owner: Any = OWNER, **data: str) -> dict:
    metadata: dict[str, Any] = {"namespace": namespace, "name": name}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {"metadata": metadata, "data": data}


def deployment(namespace: str, *, replicas: int = 1, memory: str = "64Mi") -> dict[str, Any]:
    labels = {"app": "d"}
    container = {
        "name": "main",
        "image": "example.invalid/image",
        "args": ["serve"],
        "env": [{"name": "A", "value": ""}],
        "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "1000m", "memory": memory}},
    }
    return {
        "metadata": {"namespace": namespace, "name": "d", "ownerReferences": [OWNER]},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "volumes": [], "hostNetwork": False},
            },
        },
    }


def service(namespace: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": "s", "ownerReferences": [OWNER]},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": "d"},
            "ports": [{"name": "http", "port": 80}],
        },
    }


@contextmanager
def watched(client: KubeClient, resource: Resource, namespace: str) -> Iterator[Store]:
    """A store that follows the server."""
    store, stop = Store(), threading.Event()
    reflector = Reflector(client, resource, store, lambda *_: None, namespace=namespace)
    thread = threading.Thread(target=reflector.run, args=(stop,), daemon=True)
    thread.start()
    try:
        assert reflector.synced.wait(20)
        yield store
    finally:
        stop.set()
        thread.join(10)


def test_a_second_ensure_writes_nothing_and_neither_does_one_after_a_restart(
    counting: CountingClient, namespace: str
) -> None:
    desired = [
        (CONFIGMAPS, configmap(namespace, x="1")),
        (DEPLOYMENTS, deployment(namespace)),
        (SERVICES, service(namespace)),
    ]
    before = writer(counting)
    made = [before.ensure(resource, obj) for resource, obj in desired]
    assert counting.writes == 3
    assert [before.ensure(resource, obj) for resource, obj in desired] == made
    restarted = writer(counting)
    assert [restarted.ensure(resource, obj) for resource, obj in desired] == made
    assert counting.writes == 3


def test_what_is_desired_anew_is_applied_and_what_is_no_longer_desired_goes(
    client: KubeClient, namespace: str
) -> None:
    writing = writer(client)
    writing.ensure(CONFIGMAPS, configmap(namespace, x="1", y="2"))
    changed = writing.ensure(CONFIGMAPS, configmap(namespace, y="3"))
    assert changed["data"] == {"y": "3"}
    client.patch(CONFIGMAPS, namespace, "c", {"data": {"theirs": "kept"}})
    again = writing.ensure(CONFIGMAPS, configmap(namespace, y="4"))
    assert again["data"] == {"y": "4", "theirs": "kept"}


def test_a_change_by_hand_is_undone(counting: CountingClient, namespace: str) -> None:
    writing = writer(counting)
    writing.ensure(DEPLOYMENTS, deployment(namespace, replicas=2))
    counting.patch(DEPLOYMENTS, namespace, "d", {"spec": {"replicas": 5}})
    repaired = writing.ensure(DEPLOYMENTS, deployment(namespace, replicas=2))
    assert repaired["spec"]["replicas"] == 2


def test_an_object_that_the_server_rewrites_is_not_applied_for_ever(
    counting: CountingClient, namespace: str
) -> None:
    # The server moves stringData to data, so the live object never has what is desired.
    desired = {
        "metadata": {"namespace": namespace, "name": "s"},
        "stringData": {"x": "1"},
    }
    writing = writer(counting)
    first = writing.ensure(SECRETS, desired)
    assert "stringData" not in first
    assert writing.ensure(SECRETS, desired) == first
    assert counting.writes == 1
    counting.patch(SECRETS, namespace, "s", {"data": {"x": "Mg=="}})
    assert writing.ensure(SECRETS, desired)["data"] == {"x": "MQ=="}


@pytest.mark.parametrize(
    ("owner", "whose"),
    [
        (OTHER_OWNER, "controlled by R1RewardJob other"),
        (EARLIER_OWNER, f"left of an earlier R1RewardJob job .uid {EARLIER_OWNER['uid']}"),
        (None, "nobody's"),
    ],
)
def test_an_object_of_somebody_else_is_left_alone(
    client: KubeClient, namespace: str, owner: dict[str, Any] | None, whose: str
) -> None:
    theirs = client.create(CONFIGMAPS, configmap(namespace, owner=owner, x="theirs"))
    said = f"ConfigMap {namespace}/c already exists and is {whose}"
    with pytest.raises(OwnedByAnother, match=said) as refused:
        writer(client).ensure(CONFIGMAPS, configmap(namespace, x="ours"))
    assert refused.value.live == theirs
    assert client.get(CONFIGMAPS, namespace, "c") == theirs


def test_a_store_that_lags_does_not_make_a_stranger_s_object_ours(
    client: KubeClient, namespace: str
) -> None:
    theirs = client.create(CONFIGMAPS, configmap(namespace, owner=None, x="theirs"))
    empty = {CONFIGMAPS: Store()}
    with pytest.raises(OwnedByAnother):
        writer(client, stores=empty).ensure(CONFIGMAPS, configmap(namespace, x="ours"))
    assert client.get(CONFIGMAPS, namespace, "c") == theirs


def test_what_is_made_once_stays_as_another_process_made_it(
    counting: CountingClient, namespace: str
) -> None:
    def revision(version: str) -> dict[str, Any]:
        metadata = {"namespace": namespace, "name": "r", "ownerReferences": [OWNER]}
        return {"metadata": metadata, "revision": 1, "data": {"by": version}}

    # Neither process knows yet what the other has made.
    first = writer(counting, stores={CONTROLLERREVISIONS: Store()})
    second = writer(counting, stores={CONTROLLERREVISIONS: Store()})
    made = first.ensure(CONTROLLERREVISIONS, revision("old"), once=True)
    assert second.ensure(CONTROLLERREVISIONS, revision("new"), once=True) == made
    assert counting.writes == 1
    with pytest.raises(Invalid, match="immutable"):
        second.ensure(CONTROLLERREVISIONS, revision("new"))


def test_a_store_knows_of_a_write_at_once_and_of_changes_by_others_soon(
    counting: CountingClient, namespace: str
) -> None:
    with watched(counting, CONFIGMAPS, namespace) as store:
        writing = writer(counting, stores={CONFIGMAPS: store})
        desired = configmap(namespace, x="1")
        made = writing.ensure(CONFIGMAPS, desired)
        known = store.get(namespace, "c")
        assert known is not None
        assert known["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        writing.ensure(CONFIGMAPS, desired)
        assert counting.writes == 1
        counting.patch(CONFIGMAPS, namespace, "c", {"data": {"x": "changed"}})
        eventually(lambda: (store.get(namespace, "c") or {})["data"] == {"x": "changed"})
        assert writing.ensure(CONFIGMAPS, desired)["data"] == {"x": "1"}
        writing.delete(CONFIGMAPS, namespace, "c")
        eventually(lambda: store.get(namespace, "c") is None)


def test_a_secret_is_made_without_being_read(counting: CountingClient, namespace: str) -> None:
    secret = {"metadata": {"namespace": namespace, "name": "t"}, "stringData": {"token": "x"}}
    writer(counting).create(SECRETS, secret)
    assert counting.writes == 1


def test_a_patch_that_changes_nothing_is_not_sent(counting: CountingClient, namespace: str) -> None:
    writing = writer(counting)
    writing.ensure(DEPLOYMENTS, deployment(namespace))
    for _ in range(2):
        writing.patch(DEPLOYMENTS, namespace, "d", {"spec": {"replicas": 0}})
    live = counting.get(DEPLOYMENTS, namespace, "d")
    assert live is not None
    assert (live["spec"]["replicas"], counting.writes) == (0, 2)


def test_only_the_object_that_was_meant_is_deleted(client: KubeClient, namespace: str) -> None:
    writing = writer(client)
    made = writing.ensure(CONFIGMAPS, configmap(namespace, x="1"))
    unknown = "33333333-3333-3333-3333-333333333333"
    assert not writing.delete(CONFIGMAPS, namespace, "c", uid=unknown)
    assert client.get(CONFIGMAPS, namespace, "c") == made
    assert writing.delete(CONFIGMAPS, namespace, "c", uid=made["metadata"]["uid"])
    assert client.get(CONFIGMAPS, namespace, "c") is None
    assert not writing.delete(CONFIGMAPS, namespace, "c")


def test_an_object_that_is_going_is_deleted_once_and_left_as_it_is(
    counting: CountingClient, namespace: str
) -> None:
    kept = configmap(namespace, x="1")
    kept["metadata"]["finalizers"] = ["test.r1reward.dev/keep"]
    with watched(counting, CONFIGMAPS, namespace) as store:
        writing = writer(counting, stores={CONFIGMAPS: store})
        writing.ensure(CONFIGMAPS, kept)
        assert writing.delete(CONFIGMAPS, namespace, "c")
        eventually(lambda: "deletionTimestamp" in store.items()[0]["metadata"])
        writes = counting.writes
        assert not writing.delete(CONFIGMAPS, namespace, "c")
        left = writing.ensure(CONFIGMAPS, configmap(namespace, x="2"))
        assert (left["data"], counting.writes) == ({"x": "1"}, writes)
        counting.patch(CONFIGMAPS, namespace, "c", {"metadata": {"finalizers": None}})
        eventually(lambda: store.get(namespace, "c") is None)


def test_a_status_is_written_only_when_its_meaning_changes(
    counting: CountingClient, namespace: str
) -> None:
    writing = writer(counting)
    live = writing.ensure(DEPLOYMENTS, deployment(namespace))
    condition = {
        "type": "Available",
        "status": "False",
        "reason": "Waiting",
        "lastUpdateTime": "2026-01-02T03:04:05Z",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    status = {"replicas": 2, "conditions": [condition]}
    written = writing.status(DEPLOYMENTS, live, status)
    assert written is not None
    assert written["status"] == status
    writes = counting.writes
    same = {"conditions": [dict(reversed(condition.items()))], "replicas": 2, "readyReplicas": None}
    assert writing.status(DEPLOYMENTS, written, same) is None
    assert counting.writes == writes
    less = writing.status(DEPLOYMENTS, written, {"replicas": 2})
    assert less is not None
    assert less["status"] == {"replicas": 2}


def test_a_status_leaves_what_another_manager_reports(client: KubeClient, namespace: str) -> None:
    writing = writer(client)
    live = writing.ensure(DEPLOYMENTS, deployment(namespace))
    live = client.patch_status(
        DEPLOYMENTS, namespace, "d", {"observedGeneration": 7}, None, "reporter"
    )
    theirs = ("observedGeneration",)
    written = writing.status(DEPLOYMENTS, live, {"replicas": 2}, foreign=theirs)
    assert written is not None
    assert written["status"] == {"replicas": 2, "observedGeneration": 7}
    assert writing.status(DEPLOYMENTS, written, {"replicas": 2}, foreign=theirs) is None


def test_a_status_computed_from_an_old_object_is_refused(
    client: KubeClient, namespace: str
) -> None:
    writing = writer(client)
    live = writing.ensure(DEPLOYMENTS, deployment(namespace))
    client.patch(DEPLOYMENTS, namespace, "d", {"metadata": {"labels": {"changed": "yes"}}})
    with pytest.raises(Conflict):
        writing.status(DEPLOYMENTS, live, {"replicas": 2})
    client.delete(DEPLOYMENTS, namespace, "d")
    with pytest.raises(NotFound):
        writing.status(DEPLOYMENTS, live, {"replicas": 2})


def test_nothing_is_written_behind_a_fence_that_is_down(
    counting: CountingClient, namespace: str
) -> None:
    fenced = writer(counting, fence=lambda: False)
    for write in (
        lambda: fenced.ensure(CONFIGMAPS, configmap(namespace)),
        lambda: fenced.create(CONFIGMAPS, configmap(namespace)),
        lambda: fenced.patch(CONFIGMAPS, namespace, "c", {"data": {"x": "1"}}),
        lambda: fenced.delete(CONFIGMAPS, namespace, "c"),
        lambda: fenced.status(
            DEPLOYMENTS, {"metadata": {"namespace": namespace, "name": "d"}}, {"replicas": 1}
        ),
    ):
        with pytest.raises(NotLeader):
            write()
    assert counting.writes == 0


def test_the_digest_stands_in_the_object(client: KubeClient, namespace: str) -> None:
    made = writer(client).ensure(CONFIGMAPS, configmap(namespace, x="1"))
    assert len(made["metadata"]["annotations"][APPLIED_HASH]) == 64
