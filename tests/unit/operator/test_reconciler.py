# SPDX-License-Identifier: Apache-2.0
"""When a job is looked at again."""

import itertools
from typing import Any

import pytest

from r1reward_api.constants import FIELD_MANAGER
from r1reward_operator.kube.bucket import TokenBucket
from r1reward_operator.kube.client import JsonObject, KubeClient
from r1reward_operator.kube.errors import ApiError, Invalid, NotFound, Unavailable
from r1reward_operator.kube.events import EventRecorder
from r1reward_operator.kube.transport import Transport
from r1reward_operator.kube.writer import Writer
from r1reward_operator.metrics import Metrics
from r1reward_operator.plan import Settings
from r1reward_operator.reconciler import AGAIN_SECONDS, OBSTACLE_SECONDS, Reconciler
from r1reward_operator.stores import Stores
from tests.clock import FakeClock
from tests.unit.plan.simulation import example_runtime, example_spec


class Refusing(Transport):
    """A server that takes in statuses and refuses all else, as a test says.

    Attributes:
        others: what others have made, by name.
    """

    def __init__(self, job: JsonObject, *refusals: ApiError) -> None:
        self.others: dict[str, JsonObject] = {}
        self._job = job
        self._refusals = itertools.cycle(refusals)

    def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> JsonObject:
        """As `Transport.request`."""
        if method == "GET":
            found = self.others.get(path.rsplit("/", 1)[1])
            if found is None:
                raise NotFound(404, "NotFound", path)
            return found
        if not path.endswith("/status"):
            raise next(self._refusals)
        version = str(int(self._job["metadata"]["resourceVersion"]) + 1)
        metadata = {**self._job["metadata"], "resourceVersion": version}
        self._job = {**self._job, "metadata": metadata, "status": body["status"]}
        return self._job


class Told(EventRecorder):
    """Keeps what it is told."""

    def __init__(self, client: KubeClient, component: str) -> None:
        super().__init__(client, component)
        self.told: list[tuple[str, str]] = []

    def event(
        self, regarding: Any, type: Any, reason: str, note: str, action: str = "Reconcile"
    ) -> None:
        """As `EventRecorder.event`."""
        if type == "Warning":
            self.told.append((reason, note))


def passes(*refusals: ApiError, **others: JsonObject) -> tuple[Reconciler, Stores]:
    """A reconciler of one new job, for which a server will make nothing."""
    stores = Stores()
    runtime = {"name": "nvidia-h100", "uid": "r", "resourceVersion": "1"}
    stores.cluster_runtimes.upsert({"metadata": runtime, "spec": example_runtime()})
    job = {
        "apiVersion": "r1reward.dev/v1alpha1",
        "kind": "R1RewardJob",
        "metadata": {"namespace": "a", "name": "job", "uid": "j", "resourceVersion": "1"},
        "spec": example_spec(),
    }
    stores.jobs.upsert(job)
    transport = Refusing(job, *refusals)
    transport.others = {name.replace("_", "-"): made for name, made in others.items()}
    client, clock = KubeClient(transport), FakeClock()
    writer = Writer(client, TokenBucket(1e6, 10**6), FIELD_MANAGER, stores=stores.by_resource())
    reconciler = Reconciler(
        stores=stores,
        writer=writer,
        clock=clock,
        settings=Settings(),
        recorder=Told(client, "tests"),
        metrics=Metrics(),
        new_token=lambda: "t",
        absent=frozenset,
        listening_since=clock.now,
    )
    return reconciler, stores


def phase(stores: Stores) -> str:
    """What the job's status says it does."""
    job = stores.jobs.get("a", "job")
    assert job is not None
    return job["status"]["phase"]


def test_a_refusal_in_other_words_each_time_is_tried_again_no_more_often():
    refusals = [
        Unavailable(500, "", f'failed calling webhook "v": read tcp 10.0.0.1:{port}: reset')
        for port in (50001, 50002, 50003)
    ]
    reconcile, stores = passes(*refusals)
    assert reconcile("a", "job") == AGAIN_SECONDS  # the attempt is written down
    assert [reconcile("a", "job") for _ in range(4)] == [OBSTACLE_SECONDS] * 4
    assert phase(stores) == "Blocked"


def test_a_refusal_for_good_ends_the_job_and_the_end_is_looked_at_at_once():
    reconcile, stores = passes(Invalid(422, "Invalid", "data: Invalid value"))
    reconcile("a", "job")
    assert reconcile("a", "job") == AGAIN_SECONDS
    assert phase(stores) == "Failed"
    assert reconcile("a", "job") is None


def test_an_attempt_that_another_process_has_just_frozen_is_not_frozen_anew():
    owner = {"kind": "R1RewardJob", "name": "job", "uid": "j", "controller": True}
    metadata = {"namespace": "a", "name": "job-prepare-1-frozen", "ownerReferences": [owner]}
    frozen = {"metadata": {**metadata, "uid": "f", "resourceVersion": "9"}}
    refused = Invalid(422, "Invalid", "data: Invalid value: field is immutable")
    reconcile, stores = passes(refused, job_prepare_1_frozen=frozen)
    for _ in range(3):
        assert reconcile("a", "job") == AGAIN_SECONDS
    assert phase(stores) == "Starting"


def test_an_error_inside_the_server_is_told_as_an_event_and_tried_again():
    error = Unavailable(500, "InternalError", "failed to allocate a serviceIP: range is full")
    reconcile, stores = passes(error)
    reconcile("a", "job")
    for _ in range(2):
        with pytest.raises(Unavailable):
            reconcile("a", "job")
    assert isinstance(reconcile.recorder, Told)
    assert {reason for reason, _ in reconcile.recorder.told} == {"APIServerError"}
    assert "range is full" in reconcile.recorder.told[-1][1]
    assert phase(stores) == "Starting"


def test_a_server_that_does_not_answer_at_all_is_nobodys_news():
    reconcile, _ = passes(Unavailable(0, "ReadTimeoutError", "no answer"))
    reconcile("a", "job")
    with pytest.raises(Unavailable):
        reconcile("a", "job")
    assert isinstance(reconcile.recorder, Told)
    assert reconcile.recorder.told == []
