# SPDX-License-Identifier: Apache-2.0
"""How vLLM's processes wait for one another on the CPU build, with the plug-in registered."""

import os
import subprocess
import sys

WAITING = """
import inspect, tempfile, zmq
from r1reward_rollout.plugin import register
register()
register()  # vLLM calls it more than once
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
print("spins", inspect.signature(SpinCondition).parameters["busy_loop_s"].default)
with tempfile.TemporaryDirectory() as folder:
    address = f"ipc://{folder}/notify"
    reader = SpinCondition(True, zmq.Context(), address)
    reader.last_read = 0.0  # nothing was read for long: it sleeps
    reader.wait(None)
    print("woke")
"""


def test_a_reader_sleeps_soon_and_survives_a_wake_up_that_never_comes() -> None:
    environment = {
        **os.environ,
        "VLLM_TARGET_DEVICE": "cpu",
        "PYTHONPATH": "operator:trainer_image:.",
    }
    found = subprocess.run(
        [sys.executable, "-c", WAITING],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert found.stdout.splitlines()[-2:] == ["spins 0.0005", "woke"], found.stderr[-2000:]
