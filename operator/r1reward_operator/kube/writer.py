# SPDX-License-Identifier: Apache-2.0
"""The only way in which objects are changed: fenced, limited, and never without need."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from r1reward_operator.kube.bucket import TokenBucket
from r1reward_operator.kube.client import JsonObject, KubeClient, Resource
from r1reward_operator.kube.compare import covers, digest
from r1reward_operator.kube.errors import Conflict, LeftBehind, NotFound, NotLeader, OwnedByAnother
from r1reward_operator.kube.store import Store

logger = logging.getLogger(__name__)

APPLIED_HASH = "r1reward.dev/applied-hash"
"""Annotation: the digest of the object as it was last applied."""

_SETTLED_LIMIT = 4096


class Writer:
    """Writes objects as one field manager. Safe to use from many threads.

    Args:
        client: reads and writes.
        bucket: how many writes a second.
        field_manager: owns what is written.
        fence: whether this process may write; asked right before every write.
        stores: where the live state of a resource is read; resources without a store are
            read from the server. The stores learn of what is written at once. Their
            reflectors must select all that is written, their transforms keep what is ensured.

    Every write raises `NotLeader` when the fence is down, `TooManyRequests` when the bucket
    is empty for long, and the errors of `KubeClient`.
    """

    def __init__(
        self,
        client: KubeClient,
        bucket: TokenBucket,
        field_manager: str,
        fence: Callable[[], bool] = lambda: True,
        stores: Mapping[Resource, Store] | None = None,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._manager = field_manager
        self._fence = fence
        self._stores = stores or {}
        # Objects that somebody changes back after every apply (a mutating webhook), by
        # uid: digest and version after our apply. Without it they were applied for ever.
        self._settled: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def ensure(
        self, resource: Resource, desired: Mapping[str, Any], once: bool = False
    ) -> JsonObject:
        """Makes the object as desired by server-side apply; writes nothing when it is so.

        It is so when the annotation holds the digest of what is desired and the live object
        has all of it: both are read from the object, so a restart writes nothing either,
        and a change by hand is undone.

        Args:
            resource: the object's resource.
            desired: the fields that this manager decides, with name and namespace. A field
                that it no longer has is removed, if nobody else set it.
            once: one that is there already stays as it is, however it was made.

        Returns:
            The live object. One that is being deleted is returned as it is.

        Raises:
            LeftBehind: when an object of that name is controlled by an owner of the same kind
                and name, but another uid.
            OwnedByAnother: when it is controlled by another owner, or by none where `desired`
                has one.
        """
        namespace, name = _name_of(desired)
        live = self._live(resource, namespace, name)
        if live is None and resource in self._stores:
            # The store may lag; a forced apply over a stranger's object would be worse
            # than one more read.
            live = self._client.get(resource, namespace, name)
        wanted = digest(desired)
        if live is not None:
            _refuse_foreign(resource, live, desired)
            going = live["metadata"].get("deletionTimestamp")
            if once or going or self._is_so(live, desired, wanted):
                return live
        self._allow()
        applied = self._client.apply(resource, _annotated(desired, wanted), self._manager)
        self._learn(resource, applied)
        self._settle(applied, desired, wanted)
        logger.info("applied %s %s/%s", resource, namespace, name)
        return applied

    def is_live(self, resource: Resource, namespace: str | None, name: str, uid: str) -> bool:
        """Whether the server, not only the store, has the object with this uid."""
        live = self._client.get(resource, namespace, name)
        return live is not None and live["metadata"]["uid"] == uid

    def create(self, resource: Resource, obj: Mapping[str, Any]) -> JsonObject:
        """Creates an object that is never changed, such as one that may not be read.

        Raises:
            AlreadyExists: when the name is taken, by whomever.
        """
        self._allow()
        created = self._client.create(resource, obj, self._manager)
        self._learn(resource, created)
        logger.info("created %s %s/%s", resource, *_name_of(obj))
        return created

    def patch(
        self, resource: Resource, namespace: str | None, name: str, merge_body: Mapping[str, Any]
    ) -> JsonObject:
        """Merge patch; writes nothing when the live object already covers it.

        Raises:
            NotFound: when the object is not there.
            Conflict: when the body has a resourceVersion that is not the live one.
        """
        live = self._live(resource, namespace, name)
        if live is not None and covers(live, merge_body):
            return live
        self._allow()
        patched = self._client.patch(resource, namespace, name, merge_body, self._manager)
        self._learn(resource, patched)
        logger.info("patched %s %s/%s", resource, namespace, name)
        return patched

    def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        uid: str | None = None,
        propagation: str = "Background",
        resource_version: str | None = None,
    ) -> bool:
        """Deletes the object; does nothing when it is gone, going, or now another one.

        Args:
            resource: the object's resource.
            namespace: the object's namespace.
            name: the object's name.
            uid: deletes only the object with this uid.
            propagation: `Background`, `Foreground` or `Orphan`.
            resource_version: deletes the object only as it was when this was read.

        Returns:
            Whether this call began the deletion.

        Raises:
            Conflict: when `resource_version` is given and the object has changed since.
        """
        known = self._stores[resource].get(namespace, name) if resource in self._stores else None
        if known is not None and known["metadata"].get("deletionTimestamp"):
            return False
        self._allow()
        try:
            self._client.delete(resource, namespace, name, uid, propagation, resource_version)
        except NotFound:
            return False
        except Conflict:
            if uid is None or resource_version is not None:
                raise
            return False  # the object of that uid is gone
        logger.info("deleted %s %s/%s", resource, namespace, name)
        return True

    def status(
        self,
        resource: Resource,
        live: Mapping[str, Any],
        status: Mapping[str, Any],
        foreign: Collection[str] = (),
    ) -> JsonObject | None:
        """Makes the status of an object as given, if it is not so already.

        Args:
            resource: the object's resource.
            live: the object from which `status` was computed; if it has changed on the
                server since, the write is refused.
            status: the whole status, but for the foreign fields.
            foreign: top-level fields that other managers own; neither compared nor written.

        Returns:
            The new object, or None when nothing was written.

        Raises:
            Conflict: when the object has changed since it was read, or is another one.
            NotFound: when it is gone.
        """
        wanted = _stripped({k: v for k, v in status.items() if k not in foreign})
        present = {k: v for k, v in (live.get("status") or {}).items() if k not in foreign}
        if _stripped(present) == wanted:
            return None
        metadata = live["metadata"]
        keys = ("namespace", "name", "uid", "resourceVersion")
        body = {"metadata": {k: metadata[k] for k in keys if k in metadata}, "status": wanted}
        self._allow()
        written = self._client.apply_status(resource, body, self._manager, force=True)
        self._learn(resource, written)
        return written

    def _live(self, resource: Resource, namespace: str | None, name: str) -> JsonObject | None:
        store = self._stores.get(resource)
        if store is not None:
            return store.get(namespace, name)
        return self._client.get(resource, namespace, name)

    def _learn(self, resource: Resource, obj: JsonObject) -> None:
        if resource in self._stores:
            self._stores[resource].observe(obj)

    def _is_so(self, live: Mapping[str, Any], desired: Mapping[str, Any], wanted: str) -> bool:
        metadata = live["metadata"]
        if (metadata.get("annotations") or {}).get(APPLIED_HASH) != wanted:
            return False
        return covers(live, desired) or self._settled.get(metadata["uid"]) == (
            wanted,
            _generation(live),
        )

    def _settle(self, applied: JsonObject, desired: Mapping[str, Any], wanted: str) -> None:
        if covers(applied, desired):
            return
        self._settled[applied["metadata"]["uid"]] = (wanted, _generation(applied))
        while len(self._settled) > _SETTLED_LIMIT:
            self._settled.popitem(last=False)

    def _allow(self) -> None:
        self._bucket.acquire()
        # After the wait, not before: the lease may have run out during it.
        if not self._fence():
            raise NotLeader("this process does not hold the lease")


def _name_of(obj: Mapping[str, Any]) -> tuple[str | None, str]:
    return obj["metadata"].get("namespace"), obj["metadata"]["name"]


def _annotated(desired: Mapping[str, Any], wanted: str) -> JsonObject:
    metadata = desired["metadata"]
    annotations = {**(metadata.get("annotations") or {}), APPLIED_HASH: wanted}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def _refuse_foreign(
    resource: Resource, live: Mapping[str, Any], desired: Mapping[str, Any]
) -> None:
    theirs, ours = _controller(live), _controller(desired)
    if (theirs or {}).get("uid") == (ours or {}).get("uid"):
        return
    namespace, name = _name_of(live)
    what = f"{resource.kind} {namespace}/{name} already exists and is"
    if theirs and ours and _called(theirs) == _called(ours):
        raise LeftBehind(
            f"{what} left of an earlier {theirs['kind']} {theirs['name']} (uid {theirs['uid']}) "
            "that was deleted; it is deleted, too",
            live,
        )
    owner = f"controlled by {theirs['kind']} {theirs['name']}" if theirs else "nobody's"
    raise OwnedByAnother(
        f"{what} {owner}; delete or rename it, or rename what wants to make it", live
    )


def _called(owner: Mapping[str, Any]) -> tuple[str, str]:
    return owner["kind"], owner["name"]


def _controller(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    references = obj["metadata"].get("ownerReferences") or ()
    return next((r for r in references if r.get("controller")), None)


def _generation(obj: Mapping[str, Any]) -> str:
    """Changes when somebody changes what is desired; the version where there is no better."""
    metadata = obj["metadata"]
    return str(metadata.get("generation") or metadata.get("resourceVersion"))


def _stripped(value: Any) -> Any:
    """Without what the API server drops or what says nothing: nulls and empty containers."""
    if isinstance(value, Mapping):
        items = {k: _stripped(v) for k, v in value.items()}
        return {k: v for k, v in items.items() if v is not None and v != {} and v != []}
    if isinstance(value, list | tuple):
        return [_stripped(v) for v in value]
    return value
