# SPDX-License-Identifier: Apache-2.0
import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from r1reward_api.constants import ExitCode, Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.stages import sft
from r1reward_trainer.storage.outputs import find
from tests.cluster.processes import wait_until
from tests.integration.trainer.launch import DEADLINE, Group, two_processes
from tests.integration.trainer.place import Place

SHORT = {"epochs": 2, "batchSize": 8, "microBatchSize": 3, "learningRate": 1e-3}
LONG = {**SHORT, "epochs": 500, "checkpoint": {"everySteps": 2}}

Start = Callable[[RunConfig], Group]


@pytest.fixture
def start(place: Place, tmp_path: Path) -> Iterator[Start]:
    """Starts two processes of a run."""
    with ExitStack() as stack:
        yield lambda config: stack.enter_context(
            two_processes(place, config, tmp_path / f"attempt-{config.attempt}")
        )


def weights(place: Place, config: RunConfig) -> dict[str, torch.Tensor]:
    manifest = find(place.store, Stage.SFT, config.key or "")
    assert isinstance(manifest, StageManifest)
    return load(place.file(config, manifest.outputs["weights"], "model.safetensors"))


def same_weights(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=2e-4, rtol=1e-3, msg=name)


def wait_for_checkpoint(place: Place, config: RunConfig, group: Group) -> None:
    """Until the first step is committed and the loop is under way."""
    key = f"{config.run_prefix}/checkpoints/latest.json"

    def committed() -> bool:
        head = place.store.head(key)
        return head is not None and bool(json.loads(place.store.get(key)).get("committed"))

    def alive() -> None:
        for process in group.processes:
            assert process.poll() is None, group.log(0)

    wait_until("a checkpoint is committed", committed, DEADLINE, alive)


def test_two_sharded_processes_train_what_one_trains_though_no_size_divides_another(
    place: Place, start: Start
):
    # Of 24 rows 4 and 3 a process, in micro-batches of 3. Saving changes nothing in what follows.
    odd = {**SHORT, "batchSize": 7, "checkpoint": {"everySteps": 1}}
    alone = place.config(Stage.SFT, odd, uid="one-process")
    sft.run(alone, place.context(alone))

    pair = place.config(Stage.SFT, odd, uid="two-processes")
    group = start(pair)
    assert group.exit_codes() == [ExitCode.SUCCESS, ExitCode.SUCCESS]
    same_weights(weights(place, alone), weights(place, pair))
    first, second = group.termination(0), group.termination(1)
    assert first == second
    assert first is not None
    assert (first.outcome, first.step) == ("Succeeded", 6)


def test_sigterm_to_one_process_saves_for_any_number_of_processes(place: Place, start: Start):
    first = place.config(Stage.SFT, {**LONG, "maxSteps": 1000}, uid="pair-then-one")
    group = start(first)
    wait_for_checkpoint(place, first, group)
    group.processes[1].send_signal(signal.SIGTERM)
    assert group.exit_codes() == [ExitCode.INTERRUPTED, ExitCode.INTERRUPTED]
    message = group.termination(0)
    assert message is not None
    assert message.outcome == "Interrupted"
    assert message.step is not None

    steps: list[int] = []
    total = message.step + 2
    second = place.config(Stage.SFT, {**LONG, "maxSteps": total}, uid="pair-then-one", attempt=2)
    sft.run(second, place.context(second, lambda _, step: steps.append(step)))
    assert steps == [message.step + 1, message.step + 2]


def test_a_killed_process_ends_its_peer_as_an_infrastructure_fault(place: Place, start: Start):
    config = place.config(Stage.SFT, LONG, uid="killed-peer")
    group = start(config)
    wait_for_checkpoint(place, config, group)
    group.processes[1].kill()
    assert group.exit_codes() == [ExitCode.INFRASTRUCTURE, -signal.SIGKILL]
    message = group.termination(0)
    assert message is not None
    assert message.reason == Reason.PEER_LOST
    assert re.match(r"rank 0 of 2 lost its peers at (step \d+, training|saving)", message.message)


def test_an_error_of_one_process_is_the_error_of_all(place: Place, start: Start):
    config = place.config(Stage.SFT, SHORT, uid="corrupt")
    ref = config.inputs["model"].model_copy(update={"digest": "sha256:" + "0" * 64})
    config = config.model_copy(update={"inputs": {**config.inputs, "model": ref}})
    group = start(config)
    assert group.exit_codes() == [ExitCode.CONFIGURATION, ExitCode.CONFIGURATION]
    for rank in (0, 1):
        message = group.termination(rank)
        assert message is not None
        assert message.reason == Reason.ARTIFACT_CORRUPT
