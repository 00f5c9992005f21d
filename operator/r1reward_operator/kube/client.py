# SPDX-License-Identifier: Apache-2.0
"""The verbs of the Kubernetes API over plain dicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from r1reward_operator.kube.errors import NotFound
from r1reward_operator.kube.transport import EventStream, Transport

JsonObject = dict[str, Any]
"""An API object or a part of one, as it is on the wire."""

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_WATCH_INACTIVITY = 130.0  # servers send a bookmark about every minute


@dataclass(frozen=True)
class Resource:
    """A kind of object that the API server serves.

    Attributes:
        group: empty for the core group.
        version: such as `v1`.
        plural: the name in paths.
        kind: the name in objects.
        namespaced: whether objects live in namespaces.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` of the objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The path of the collection, of an object in it, or of its subresource.

        Args:
            namespace: None for all namespaces, or for a resource without them.
            name: None for the collection.
            subresource: such as `status`; needs a name.

        Raises:
            ValueError: for an object of a namespaced resource without its namespace.
        """
        if name is not None and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name} needs a namespace")
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/" + "/".join(quote(part, safe="") for part in parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


class KubeClient:
    """Calls to one API server. Safe to use from many threads.

    Every method raises an `ApiError` of `kube.errors`, and none waits longer than
    `timeout` seconds for its answer.
    """

    def __init__(self, transport: Transport, *, timeout: float = 30.0) -> None:
        self._transport = transport
        self._timeout = timeout

    @classmethod
    def from_environment(
        cls, kubeconfig: str | None = None, *, timeout: float = 30.0
    ) -> "KubeClient":
        """Connects by the kubeconfig given, the pod's service account, or the default
        kubeconfig. Every call makes a connection pool of its own."""
        return cls(Transport.from_environment(kubeconfig), timeout=timeout)

    def within(self, seconds: float) -> "KubeClient":
        """Calls to the same server that wait no longer than this for their answer."""
        return KubeClient(self._transport, timeout=min(seconds, self._timeout))

    def get(self, resource: Resource, namespace: str | None, name: str) -> JsonObject | None:
        """The object, or None when it, or its resource, is not there."""
        try:
            return self._call("GET", resource.path(namespace, name))
        except NotFound:
            return None

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int = 500,
        continue_: str | None = None,
        resource_version: str | None = None,
    ) -> JsonObject:
        """One page of the collection; `metadata.continue` leads to the next.

        Args:
            resource: what to list.
            namespace: None for all.
            label_selector: None for all.
            limit: the most objects in a page; 0 for all at once.
            continue_: the token of the page before.
            resource_version: None for the newest.
        """
        query = {
            "labelSelector": label_selector or "",
            "limit": str(limit) if limit else "",
            "continue": continue_ or "",
            "resourceVersion": resource_version or "",
        }
        return self._call("GET", resource.path(namespace), query=query)

    def watch(
        self,
        resource: Resource,
        resource_version: str,
        label_selector: str | None,
        timeout_seconds: float,
        namespace: str | None = None,
    ) -> EventStream:
        """The events after `resource_version`, bookmarks among them.

        ERROR events are raised as exceptions. The stream ends after `timeout_seconds`.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector or "",
            "timeoutSeconds": str(max(1, round(timeout_seconds))),
        }
        inactivity = min(timeout_seconds + self._timeout, _WATCH_INACTIVITY)
        return self._transport.stream(resource.path(namespace), query=query, inactivity=inactivity)

    def create(
        self, resource: Resource, obj: Mapping[str, Any], field_manager: str | None = None
    ) -> JsonObject:
        """Creates the object; raises `AlreadyExists` when its name is taken."""
        namespace, _ = _identity(resource, obj)
        query = {"fieldManager": field_manager or ""}
        return self._call("POST", resource.path(namespace), query=query, body=obj)

    def apply(
        self, resource: Resource, obj: Mapping[str, Any], field_manager: str, force: bool = True
    ) -> JsonObject:
        """Server-side apply: creates the object or takes over the fields given.

        Raises:
            Conflict: another manager owns a field (without `force`), or `metadata` has
                a resourceVersion or uid that is not the live one.
        """
        return self._apply(resource, obj, None, field_manager, force)

    def apply_status(
        self, resource: Resource, obj: Mapping[str, Any], field_manager: str, force: bool = False
    ) -> JsonObject:
        """Server-side apply to the status subresource. Raises as `apply`, and `NotFound`."""
        return self._apply(resource, obj, "status", field_manager, force)

    def patch_status(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        status: Mapping[str, Any],
        resource_version: str | None,
        field_manager: str | None = None,
    ) -> JsonObject:
        """Merge patch of the status subresource.

        Args:
            resource: the object's resource.
            namespace: the object's namespace.
            name: the object's name.
            status: what to merge; None deletes a field.
            resource_version: raises `Conflict` when it is not the live one; None for any.
            field_manager: who owns the fields from now on.
        """
        body: JsonObject = {"status": status}
        if resource_version is not None:
            body["metadata"] = {"resourceVersion": resource_version}
        return self._call(
            "PATCH",
            resource.path(namespace, name, "status"),
            query={"fieldManager": field_manager or ""},
            body=body,
            content_type=_MERGE,
        )

    def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        merge_body: Mapping[str, Any],
        field_manager: str | None = None,
    ) -> JsonObject:
        """Merge patch; with `metadata.resourceVersion` in the body only of that version."""
        return self._call(
            "PATCH",
            resource.path(namespace, name),
            query={"fieldManager": field_manager or ""},
            body=merge_body,
            content_type=_MERGE,
        )

    def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        uid: str | None = None,
        propagation: str = "Background",
        resource_version: str | None = None,
    ) -> None:
        """Deletes the object; raises `Conflict` when it has another uid or version than given."""
        body: JsonObject = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        }
        wanted = {"uid": uid, "resourceVersion": resource_version}
        if preconditions := {k: v for k, v in wanted.items() if v is not None}:
            body["preconditions"] = preconditions
        self._call("DELETE", resource.path(namespace, name), body=body)

    def post(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """Posts to a path that is no collection of objects, such as token reviews."""
        return self._call("POST", path, body=body)

    def _apply(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        subresource: str | None,
        field_manager: str,
        force: bool,
    ) -> JsonObject:
        namespace, name = _identity(resource, obj)
        return self._call(
            "PATCH",
            resource.path(namespace, name, subresource),
            query={"fieldManager": field_manager, "force": "true" if force else "false"},
            body={**obj, "apiVersion": resource.api_version, "kind": resource.kind},
            content_type=_APPLY,
        )

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> JsonObject:
        return self._transport.request(
            method, path, query=query, body=body, content_type=content_type, timeout=self._timeout
        )


def _identity(resource: Resource, obj: Mapping[str, Any]) -> tuple[str | None, str]:
    metadata = obj.get("metadata") or {}
    namespace = metadata.get("namespace")
    if resource.namespaced and not namespace:
        raise ValueError(f"metadata.namespace is missing in {resource.kind} {metadata.get('name')}")
    if not metadata.get("name"):
        raise ValueError(f"metadata.name is missing in a {resource.kind}")
    return namespace, metadata["name"]
