# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from r1reward_operator.kube.client import KubeClient, Resource
from r1reward_operator.kube.reflector import Reflector
from r1reward_operator.kube.resources import CONFIGMAPS, PYTORCHJOBS
from r1reward_operator.kube.store import Store
from r1reward_operator.kube.transport import EventStream
from tests.integration.kube.waiting import eventually

CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
THINGS = Resource("test.r1reward.dev", "v1", "things", "Thing")
SELECTOR = "watched=yes"


def configmap(namespace: str, name: str, **data: str) -> dict[str, Any]:
    labels = {"watched": "yes"}
    return {"metadata": {"namespace": namespace, "name": name, "labels": labels}, "data": data}


class Told:
    """Notes type and name of every event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __call__(self, kind: str, obj: dict[str, Any], old: dict[str, Any] | None) -> None:
        self.events.append((kind, obj["metadata"]["name"]))


@contextmanager
def running(reflector: Reflector) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=reflector.run, args=(stop,), daemon=True)
    thread.start()
    try:
        assert reflector.synced.wait(20)
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive(), "a watch must end when the reflector is told to stop"


def test_a_store_follows_what_is_made_changed_and_deleted(
    client: KubeClient, namespace: str
) -> None:
    client.create(CONFIGMAPS, configmap(namespace, "before"))
    client.create(CONFIGMAPS, {"metadata": {"namespace": namespace, "name": "unlabelled"}})
    told, store = Told(), Store()
    with running(Reflector(client, CONFIGMAPS, store, told, SELECTOR, namespace)):
        client.create(CONFIGMAPS, configmap(namespace, "a"))
        client.patch(CONFIGMAPS, namespace, "a", {"data": {"x": "1"}})
        client.delete(CONFIGMAPS, namespace, "before")
        eventually(lambda: len(told.events) == 4)
    assert told.events == [
        ("ADDED", "before"),
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "before"),
    ]
    (kept,) = store.items()
    assert (kept["apiVersion"], kept["kind"], kept["data"]) == ("v1", "ConfigMap", {"x": "1"})
    assert "managedFields" not in kept["metadata"]


class SpiedClient(KubeClient):
    """The real client, noting from which version each watch goes on."""

    def __init__(self, client: KubeClient) -> None:
        super().__init__(client._transport)
        self.versions: list[int] = []

    def watch(
        self,
        resource: Resource,
        resource_version: str,
        label_selector: str | None,
        timeout_seconds: float,
        namespace: str | None = None,
    ) -> EventStream:
        self.versions.append(int(resource_version))
        return super().watch(resource, resource_version, label_selector, timeout_seconds, namespace)


class StaleClient(SpiedClient):
    """The real client, whose second watch asks for a version that the server has forgotten."""

    def __init__(self, client: KubeClient, meanwhile: Callable[[], None]) -> None:
        super().__init__(client)
        self._meanwhile = meanwhile

    def watch(
        self,
        resource: Resource,
        resource_version: str,
        label_selector: str | None,
        timeout_seconds: float,
        namespace: str | None = None,
    ) -> EventStream:
        if len(self.versions) == 1:
            self._meanwhile()
            resource_version = "1"
        return super().watch(resource, resource_version, label_selector, timeout_seconds, namespace)


def training(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": PYTORCHJOBS.api_version,
        "kind": PYTORCHJOBS.kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"pytorchReplicaSpecs": {}},
    }


def test_after_410_what_was_deleted_meanwhile_is_told(client: KubeClient, namespace: str) -> None:
    for name in ("kept", "deleted"):
        client.create(PYTORCHJOBS, training(namespace, name))

    def while_nobody_watches() -> None:
        client.delete(PYTORCHJOBS, namespace, "deleted")
        client.create(PYTORCHJOBS, training(namespace, "added"))

    stale = StaleClient(client, while_nobody_watches)
    told, store = Told(), Store()
    reflector = Reflector(
        stale, PYTORCHJOBS, store, told, namespace=namespace, watch_seconds=(1.0, 1.0)
    )
    with running(reflector):
        eventually(lambda: len(stale.versions) >= 3)
        assert sorted(obj["metadata"]["name"] for obj in store.items()) == ["added", "kept"]
    assert stale.versions[1] == 1
    assert told.events[2:] == [("DELETED", "deleted"), ("ADDED", "added")]


def test_bookmarks_advance_where_a_watch_without_events_goes_on(
    client: KubeClient, namespace: str
) -> None:
    spied = SpiedClient(client)
    # The server sends a bookmark 2 s before a watch's end, and none when a slow machine has
    # not begun the watch by then.
    reflector = Reflector(
        spied, CONFIGMAPS, Store(), Told(), SELECTOR, namespace, watch_seconds=(8.0, 9.0)
    )
    with running(reflector):
        unseen = {"metadata": {"namespace": namespace, "name": "unlabelled"}}
        made = client.create(CONFIGMAPS, unseen)
        version = int(made["metadata"]["resourceVersion"])
        eventually(lambda: spied.versions[-1] >= version, 60)


def crd() -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "metadata": {"name": "things.test.r1reward.dev"},
        "spec": {
            "group": THINGS.group,
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [version],
        },
    }


def test_a_kind_that_is_not_installed_is_unavailable_until_it_is(
    client: KubeClient, namespace: str
) -> None:
    store = Store()
    reflector = Reflector(client, THINGS, store, Told(), namespace=namespace)
    with running(reflector):
        assert not reflector.available
        assert reflector.healthy(60)
        client.create(CRDS, crd())
        eventually(lambda: reflector.available, 60)
        thing = {"metadata": {"namespace": namespace, "name": "t"}}
        client.create(THINGS, {"apiVersion": THINGS.api_version, "kind": "Thing", **thing})
        eventually(lambda: store.get(namespace, "t") is not None)
        client.delete(CRDS, None, "things.test.r1reward.dev")
        eventually(lambda: not reflector.available and len(store) == 0, 60)
