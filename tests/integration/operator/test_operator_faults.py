# SPDX-License-Identifier: Apache-2.0
"""What befalls the operator itself, on a real API server: it writes only when it must, only
while it leads, and goes on where it was when the API server is back."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from r1reward_api.constants import Stage
from r1reward_operator.kube.client import Resource
from r1reward_operator.kube.errors import NotFound, Unavailable
from r1reward_operator.kube.resources import DEPLOYMENTS, JOBS, PODS, PYTORCHJOBS
from r1reward_operator.resources import CHILDREN, R1REWARDJOBS
from tests.clock import ShiftedClock
from tests.integration.operator.conftest import NAMESPACES
from tests.integration.operator.line import Call
from tests.integration.operator.world import JOB_FILE, World

LEASE_SECONDS = 15
_TRIES = 20


def to_rl_servers(world: World, name: str) -> None:
    """Walks a job without annotate and sft until rl waits for its servers."""
    world.create(name, annotate=None, sft=None)
    world.run(name, Stage.PREPARE)
    world.succeed(name, Stage.PREPARE)


def to_rl(world: World, name: str) -> None:
    """Walks a job without annotate and sft until the pods of rl run."""
    to_rl_servers(world, name)
    world.serve(name, Stage.RL)
    world.run(name, Stage.RL)
    world.wait_phase(name, Stage.RL, "Running", 1)


def rest(world: World) -> int:
    """Waits until passes write nothing. Returns the writes so far."""
    for _ in range(_TRIES):
        before = world.writes()
        world.settle()
        world.settle()
        if world.writes() == before:
            return before
    raise AssertionError("it writes for ever")


def writes_nothing(world: World) -> None:
    """Looks at the job some times more, later in the day, and after a restart."""
    world.clock.advance(300)
    before = rest(world)
    for _ in range(3):
        world.settle()
    world.stop_operator()
    world.start_operator()
    world.eventually("a pass of the new operator", lambda: world.passes() >= 1)
    world.settle()
    assert world.line.written[before:] == []


def test_an_idle_operator_writes_nothing_in_any_phase_of_a_job(world: World):
    world.create("idle", annotate=None, sft=None)
    world.wait_phase("idle", Stage.PREPARE, "Starting", 1)
    writes_nothing(world)
    world.run("idle", Stage.PREPARE)
    world.wait_phase("idle", Stage.PREPARE, "Running", 1)
    writes_nothing(world)
    world.change("idle", {"suspend": True})
    world.wait_phase("idle", Stage.PREPARE, "Suspended", 1)
    writes_nothing(world)


def reapply(world: World, name: str, spec: dict[str, Any], manager: str) -> None:
    """Applies a job as it is, as `kubectl apply --server-side` or a GitOps controller does."""
    metadata = {"namespace": world.namespace, "name": name}
    job = {**yaml.safe_load(JOB_FILE.read_text()), "metadata": metadata, "spec": spec}
    world.client.apply(R1REWARDJOBS, job, manager)


def test_a_finished_job_that_is_applied_again_unchanged_is_left_as_it_is(world: World):
    to_rl(world, "done")
    world.succeed("done", Stage.RL)
    for pod in world.pods("done", Stage.RL, 1):
        world.delete_pod(pod)
    world.serve("done", Stage.EVALUATE)
    world.run("done", Stage.EVALUATE)
    world.succeed("done", Stage.EVALUATE)
    world.eventually(
        "Succeeded", lambda: world.condition("done", "Succeeded").get("status") == "True"
    )
    rest(world)
    left = world.everything("done")
    before = world.writes()
    spec = world.job("done")["spec"]
    for manager in ("kubectl", "argocd"):
        reapply(world, "done", spec, manager)
        world.settle()
    annotation = {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "x"}}}
    world.client.patch(R1REWARDJOBS, world.namespace, "done", annotation)
    world.settle()
    assert world.line.written[before:] == []
    changed = {k for k, v in world.everything("done").items() if left.get(k) != v}
    assert changed <= {f"{R1REWARDJOBS}/done"}
    assert world.condition("done", "Succeeded")["status"] == "True"
    writes_nothing(world)


FREEZE_AT = {
    "in a write of the status": lambda c: c.path.endswith("/r1rewardjobs/ice/status"),
    "in making a server": lambda c: c.path.endswith("/deployments/ice-rl-1-rollout"),
    "in making the trainer": lambda c: c.path.endswith("/pytorchjobs/ice-rl-1"),
}


@pytest.mark.parametrize(
    "at",
    [
        "in a write of the status",
        "in making a server",
        pytest.param("in making the trainer", marks=pytest.mark.full),
    ],
)
def test_a_leader_that_was_frozen_past_its_lease_writes_nothing_more(
    at: str, worlds: Callable[[], World]
):
    world = worlds()
    clocks = ShiftedClock(), ShiftedClock()
    lines = world.line, world.new_line()
    first, second = (
        world.new_operator(True, line, clock) for line, clock in zip(lines, clocks, strict=True)
    )
    frozen = threading.Event()

    def freeze(call: Call) -> None:
        if FREEZE_AT[at](call) and world.stage("ice", Stage.RL).get("attempt") == 1:
            lines[0].freeze()
            frozen.set()

    first.start()
    world.eventually("a leader", first.is_leader)
    second.start()
    world.operator = second
    try:
        to_rl_servers(world, "ice")
        world.wait_phase("ice", Stage.RL, "Starting", 1)
        lines[0].before = freeze
        if at == "in making the trainer":
            world.serve("ice", Stage.RL)
        elif at == "in a write of the status":
            world.change("ice", {"policy": {"backoffLimit": 7}})
        world.eventually("the leader frozen", frozen.is_set)
        before = len(lines[0].written)

        # 1. Another takes over when the lease has run out, and the job goes on.
        world.eventually("the lease seen", lambda: not second.is_leader())
        clocks[1].advance(LEASE_SECONDS + 1)
        world.eventually("another leader", second.is_leader)
        if at != "in making the trainer":
            world.serve("ice", Stage.RL)
        (pod, _) = world.run("ice", Stage.RL)
        world.end_pod(pod, "pytorch", 75, "")
        clocks[1].advance(60)
        world.settle()
        world.wait_phase("ice", Stage.RL, "Retrying", 1)
        for name in world.pods("ice", Stage.RL, 1):
            world.delete_pod(name)
        clocks[1].advance(600)
        world.settle()
        world.wait_phase("ice", Stage.RL, "Starting", 2)
        world.serve("ice", Stage.RL, 2)
        world.run("ice", Stage.RL, 2)
        world.wait_phase("ice", Stage.RL, "Running", 2)
        world.settle()
        status = world.job("ice")["status"]

        # 2. Thawed, the first one does not lead, and begins no write.
        sent = len(lines[0].calls)
        clocks[0].advance(700)
        assert not first.is_leader()
        lines[0].thaw()
        first.resync()
        world.eventually("the first one at work", lambda: len(lines[0].calls) > sent + 2)
        world.settle()
        assert [c for c in lines[0].calls[sent:] if c.is_write] == []
        assert second.is_leader()

        # 3. The write that was under way came too late: nothing of it is left.
        late = lines[0].written[before:]
        refused = at == "in a write of the status"
        assert [c for c in late if FREEZE_AT[at](c)] == ([] if refused else late[:1])
        world.eventually(
            "what came too late taken back",
            lambda: not [n for n in names(world) if n.startswith("ice-rl-1")],
        )
        world.settle()
        assert world.job("ice")["status"] == status
    finally:
        lines[0].thaw()
        first.stop()


def names(world: World) -> list[str]:
    """Names of all children that are there."""
    found = []
    for resource in CHILDREN.values():
        items = world.client.list(resource, world.namespace)["items"]
        found += [i["metadata"]["name"] for i in items]
    return found


def test_an_api_server_that_is_away_is_asked_seldom_and_what_happened_meanwhile_is_seen(
    world: World,
):
    to_rl(world, "away")
    rest(world)
    begun = len(world.line.calls)
    world.line.cut()
    threading.Event().wait(4)  # the time during which it is away is what is measured
    asked = len(world.line.calls) - begun
    # Each of the watches waits 0.25 to 0.5 s, then twice as long each time.
    watches = len(CHILDREN) + 4
    assert asked <= watches * 6, "an absent API server is asked in a hot loop"

    world.end_pod("away-rl-1-worker-0", "pytorch", 1, "")
    world.change("away", {"policy": {"backoffLimit": 7}})
    back = len(world.line.calls)
    world.line.mend()
    world.clock.advance(60)
    stage = world.wait_phase("away", Stage.RL, "Retrying", 1)
    assert (stage["reason"], stage["programFailures"]) == ("ProgramError", 1)
    methods = [c.method for c in world.line.calls[back:] if c.method in ("GET", "WATCH")]
    assert methods.count("WATCH") >= 2, "its watches go on where they were"
    assert methods.count("GET") <= 2, "nothing is listed anew"
    rest(world)
    assert len(world.line.calls) - back <= 100


def test_a_namespace_that_is_deleted_gets_nothing_new_and_comes_to_rest(
    world: World, caplog: pytest.LogCaptureFixture
):
    to_rl(world, "gone")
    rest(world)
    world.client.delete(NAMESPACES, None, world.namespace)
    # In the worst order: the job itself goes last.
    for pod in world.client.list(PODS, world.namespace)["items"]:
        world.delete_pod(pod["metadata"]["name"])
    for resource in (DEPLOYMENTS, PYTORCHJOBS, JOBS):
        delete_all(world, resource)
    world.wait_phase("gone", Stage.RL, "Retrying", 1)
    world.clock.advance(600)
    world.settle()
    world.wait_phase("gone", Stage.RL, "Starting", 2)
    begun = len(world.line.calls)
    threading.Event().wait(3)  # the time in which it would loop
    assert len(world.line.calls) - begun <= 30
    assert not [n for n in names(world) if n.startswith("gone-rl-2")]
    for resource in (*CHILDREN.values(), R1REWARDJOBS):
        delete_all(world, resource)
    written = world.writes()
    threading.Event().wait(1)  # the time in which it would make something again
    assert world.writes() == written
    assert names(world) == []
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


def delete_all(world: World, resource: Resource) -> None:
    """Deletes objects as the namespace controller does; nothing keeps one from going."""
    for item in world.client.list(resource, world.namespace)["items"]:
        assert "finalizers" not in item["metadata"]
        try:
            world.client.delete(resource, world.namespace, item["metadata"]["name"])
        except NotFound:
            continue  # the operator was faster


def test_answers_that_never_come_and_refusals_cost_no_attempt(world: World):
    """Every third write is done without an answer, and every fifth is not done at all."""
    tried = 0
    lock = threading.Lock()

    def count(call: Call) -> int:
        nonlocal tried
        with lock:
            tried += 1
            return tried

    def before(call: Call) -> None:
        if count(call) % 5 == 0:
            raise Unavailable(500, "InternalError", "etcdserver: request timed out")

    def after(call: Call) -> None:
        if tried % 3 == 0:
            raise Unavailable(0, "ReadTimeoutError", "no answer")

    world.line.before, world.line.after = before, after
    to_rl(world, "rough")
    assert world.stage("rough", Stage.PREPARE)["attempt"] == 1
    stage = world.stage("rough", Stage.RL)
    costs = (stage["programFailures"], stage["infrastructureFailures"])
    assert (stage["attempt"], *costs) == (1, 0, 0)
    assert tried >= 15
