# SPDX-License-Identifier: Apache-2.0
"""An operator that is killed between any two writes, or is not told what became of them,
leaves what an undisturbed one leaves."""

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from r1reward_api.constants import Stage
from r1reward_operator.kube.client import KubeClient
from r1reward_operator.kube.errors import ApiError, Unavailable
from r1reward_operator.resources import CHILDREN
from tests.clock import FakeClock
from tests.integration.operator.line import Call, Line
from tests.integration.operator.passes import Passes
from tests.integration.operator.world import World

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"10\.96\.\d+\.\d+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TRIES = 60
"""More than the writes of any one step."""
_OWN = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "annotations")

Operate = Callable[[], None]


class Killed(BaseException):
    """The process is no more."""


def undisturbed(make: Callable[[], Passes], line: Line) -> Operate:
    """One process at a time, as long as there is something to do."""
    return lambda: make().rest("walk")


def killed_every(writes: int) -> Callable[[Callable[[], Passes], Line], Operate]:
    """Every process is killed after so many writes, and another one is started."""

    def prepare(make: Callable[[], Passes], line: Line) -> Operate:
        def kill(call: Call) -> None:
            if len(line.written) >= born + writes:
                raise Killed

        born = 0
        line.after = kill

        def operate() -> None:
            nonlocal born
            for _ in range(_TRIES):
                born = len(line.written)
                try:
                    return make().rest("walk")
                except Killed:
                    continue
            raise AssertionError("tried again for ever")

        return operate

    return prepare


def failing(when: str, every: int) -> Callable[[Callable[[], Passes], Line], Operate]:
    """The process lives on, but some writes are not done, or done without an answer."""

    def prepare(make: Callable[[], Passes], line: Line) -> Operate:
        tried = 0

        def fail(call: Call) -> None:
            nonlocal tried
            tried += 1
            if tried % every == 0:
                raise Unavailable(0, "ReadTimeoutError", "no answer")

        setattr(line, when, fail)
        process = make()

        def operate() -> None:
            for _ in range(_TRIES):
                try:
                    return process.rest("walk")
                except ApiError:
                    continue  # the controller tries again, a little later
            raise AssertionError("tried again for ever")

        return operate

    return prepare


MODES = {
    "killed after every write": killed_every(1),
}
MORE_MODES = {
    "told of no write that it was done": failing("after", 1),
    "killed after every second write": killed_every(2),
    "killed after every third write": killed_every(3),
    "kept from every third write": failing("before", 3),
}


def story(world: World, operate: Operate, clock: FakeClock) -> list[str]:
    """Stages of each kind, with a failure, a suspension and a rerun. Returns what lay there after
    each step."""
    seen = []

    def goes_on() -> None:
        operate()
        seen.append(left(world))

    def work(stage: Stage, attempt: int) -> list[str]:
        if stage in (Stage.RL, Stage.EVALUATE):
            world.serve("walk", stage, attempt)
            goes_on()
        pods = world.run("walk", stage, attempt)
        goes_on()
        return pods

    def collect(stage: Stage, attempt: int) -> None:
        for pod in world.pods("walk", stage, attempt):
            world.delete_pod(pod)
        clock.advance(600)
        goes_on()

    world.create("walk", annotate=None, sft=None)
    goes_on()
    for pod in work(Stage.PREPARE, 1):
        world.end_pod(pod, "r1", 1, "")
    goes_on()
    collect(Stage.PREPARE, 1)
    work(Stage.PREPARE, 2)
    world.succeed("walk", Stage.PREPARE, 2)
    goes_on()

    work(Stage.RL, 1)
    world.change("walk", {"suspend": True})
    goes_on()
    world.change("walk", {"suspend": False})
    goes_on()
    collect(Stage.RL, 1)
    work(Stage.RL, 2)
    world.succeed("walk", Stage.RL, 2)
    goes_on()
    collect(Stage.RL, 2)

    for pod in work(Stage.EVALUATE, 1):
        world.end_pod(pod, "r1", 78, "")
    goes_on()
    world.change("walk", {"rerun": 1})
    goes_on()
    return seen


def left(world: World) -> str:
    """The job's status and all children, without what the API server alone decides."""
    job = world.job("walk")
    objects: list[Any] = [job["status"]]
    for kind, resource in CHILDREN.items():
        for item in world.client.list(resource, world.namespace)["items"]:
            metadata = {k: v for k, v in item["metadata"].items() if k not in _OWN}
            objects.append({**item, "kind": kind, "metadata": metadata})
    return anonymous(world, job["metadata"]["uid"], json.dumps(objects, sort_keys=True, indent=1))


def made_and_deleted(line: Line, world: World) -> Counter[str]:
    """How often each object was made, changed or deleted; the job's status does not count."""
    uid = world.job("walk")["metadata"]["uid"]
    calls = [f"{c.method} {c.path}" for c in line.written if not c.path.endswith("/status")]
    return Counter(anonymous(world, uid, call) for call in calls)


def anonymous(world: World, job_uid: str, text: str) -> str:
    """A text without times and without what tells one job and namespace from another."""
    named = text.replace(world.namespace, "namespace")
    # The names of tokens carry the beginning of the job's UID.
    named = _UUID.sub("uuid", named).replace(job_uid[:8], "uuid")
    return _TIME.sub("time", _ADDRESS.sub("address", named))


@pytest.fixture(scope="module")
def straight() -> dict[str, Any]:
    """What an undisturbed operator does; filled by the first test that needs it."""
    return {}


@pytest.mark.parametrize(
    "mode", [*MODES, *(pytest.param(more, marks=pytest.mark.full) for more in MORE_MODES)]
)
def test_the_same_is_left_by_an_operator_that_is(
    mode: str, worlds: Callable[[], World], operator_client: KubeClient, straight: dict[str, Any]
):
    def tell(prepare: Callable[[Callable[[], Passes], Line], Operate]) -> dict[str, Any]:
        world, line = worlds(), Line(operator_client)
        clock = FakeClock(datetime.now(UTC))
        client = KubeClient(line)
        operate = prepare(lambda: Passes(client, world.namespace, clock), line)
        seen = story(world, operate, clock)
        return {"seen": seen, "writes": made_and_deleted(line, world)}

    if not straight:
        straight.update(tell(undisturbed))
    found = tell({**MODES, **MORE_MODES}[mode])
    for step, (one, other) in enumerate(zip(straight["seen"], found["seen"], strict=True)):
        assert other == one, f"after step {step}"
    assert found["writes"] == straight["writes"]
