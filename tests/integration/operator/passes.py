# SPDX-License-Identifier: Apache-2.0
"""An operator without threads, so that a test decides at which write it ends."""

from r1reward_api.constants import FIELD_MANAGER
from r1reward_operator.kube.bucket import TokenBucket
from r1reward_operator.kube.client import KubeClient
from r1reward_operator.kube.clock import Clock
from r1reward_operator.kube.events import EventRecorder
from r1reward_operator.kube.writer import Writer
from r1reward_operator.metrics import Metrics
from r1reward_operator.plan import Settings
from r1reward_operator.reconciler import AGAIN_SECONDS, Reconciler
from r1reward_operator.stores import Stores

_LIMIT = 40


class Passes:
    """One process: it knows what the API server says when it looks, and nothing else.

    Args:
        client: the operator's.
        namespace: the only one that it serves.
        clock: the time.
    """

    def __init__(self, client: KubeClient, namespace: str, clock: Clock) -> None:
        self._client = client
        self._namespace = namespace
        self._stores = Stores()
        self._reconcile = Reconciler(
            stores=self._stores,
            writer=Writer(
                client, TokenBucket(1e6, 10**6), FIELD_MANAGER, stores=self._stores.by_resource()
            ),
            clock=clock,
            settings=Settings(progress_url="http://progress.example:8082"),
            recorder=EventRecorder(client, "tests"),
            metrics=Metrics(),
            new_token=lambda: "t" * 43,
            absent=frozenset,
            listening_since=clock.now,
        )

    def rest(self, name: str) -> None:
        """Makes passes over a job until time or the cluster must change something."""
        for _ in range(_LIMIT):
            self._look()
            after = self._reconcile(self._namespace, name)
            if after is None or after > AGAIN_SECONDS:
                return
        raise AssertionError(f"{name} does not come to rest")

    def once(self, name: str) -> None:
        """One more pass over a job as it was when last looked at."""
        self._reconcile(self._namespace, name)

    def _look(self) -> None:
        for resource, store in self._stores.by_resource().items():
            page = self._client.list(resource, self._namespace if resource.namespaced else None)
            typed = {"apiVersion": resource.api_version, "kind": resource.kind}
            store.replace(
                [{**typed, **item} for item in page["items"]], page["metadata"]["resourceVersion"]
            )
