# SPDX-License-Identifier: Apache-2.0
"""Two processes of the operator, of which one is stopped in its tracks and one is killed."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from r1reward_api.constants import Stage
from r1reward_operator.app import LEASE
from r1reward_operator.kube.resources import LEASES
from tests.cluster.layout import REPOSITORY
from tests.cluster.ports import free
from tests.cluster.processes import Daemon, Supervisor
from tests.integration.operator.conftest import SYSTEM
from tests.integration.operator.world import World

WRITES = ("applied ", "created ", "deleted ", "patched ")


@pytest.mark.full
def test_a_stopped_leader_writes_nothing_when_it_goes_on_and_leads_again_when_the_other_is_killed(
    worlds: Callable[[], World], operator_kubeconfig: Path, tmp_path: Path
):
    world = worlds()

    def daemon(name: str) -> Daemon:
        metrics, progress = free(2)
        arguments = (
            sys.executable, "-m", "r1reward_operator",
            f"--kubeconfig={operator_kubeconfig}", f"--watch-namespace={world.namespace}",
            f"--metrics-port={metrics}", f"--progress-port={progress}",
        )  # fmt: skip
        environment = {"POD_NAME": name, "PYTHONPATH": str(REPOSITORY / "operator")}
        return Daemon(name, arguments, environment)

    def holder() -> str:
        lease = world.client.get(LEASES, SYSTEM, LEASE)
        return "" if lease is None else lease["spec"].get("holderIdentity", "")

    def leads(name: str) -> None:
        world.eventually(f"{name} leads", lambda: holder().startswith(name), seconds=60)

    with Supervisor(tmp_path, tied=True) as supervisor:

        def send(number: signal.Signals, name: str) -> None:
            pid = supervisor.running(name)
            assert pid is not None
            os.kill(pid, number)

        def written(name: str) -> list[str]:
            lines = supervisor.log(name).read_text().splitlines()
            return [line for line in lines if any(word in line for word in WRITES)]

        supervisor.start(daemon("first"))
        leads("first")
        supervisor.start(daemon("second"))
        world.create("pair", annotate=None, sft=None)
        world.run("pair", Stage.PREPARE)
        world.wait_phase("pair", Stage.PREPARE, "Running", 1)
        send(signal.SIGSTOP, "first")
        before = written("first")
        assert before
        world.succeed("pair", Stage.PREPARE)
        leads("second")
        world.serve("pair", Stage.RL)
        world.run("pair", Stage.RL)
        world.wait_phase("pair", Stage.RL, "Running", 1)

        send(signal.SIGCONT, "first")
        log = supervisor.log("first")
        world.eventually("it notices", lambda: "no longer leads" in log.read_text())
        assert written("first") == before
        assert holder().startswith("second")

        send(signal.SIGKILL, "second")
        leads("first")
        world.succeed("pair", Stage.RL)
        world.wait_phase("pair", Stage.EVALUATE, "Starting", 1)
        assert world.stage("pair", Stage.RL)["attempt"] == 1
        assert len(written("first")) > len(before)
