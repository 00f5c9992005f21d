# SPDX-License-Identifier: Apache-2.0
"""What a server says of weights that it has fetched, or could not fetch."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from r1reward_rollout.preparation import Preparer
from r1reward_rollout.served import ServedModel
from r1reward_rollout.update_info import FileSpec, TensorSpec, UpdateInfo
from tests.unit.rollout.asking import eventually
from tests.unit.rollout.test_download import Answer, send, store

SERVED = ServedModel({"lm_head.weight": TensorSpec("F32", (8, 4))}, "F32", False, lambda name: name)


def weights_of(rows: int) -> bytes:
    return save({"lm_head.weight": torch.zeros(rows, 4)})


DATA = weights_of(8)


def status(answer: Answer, data: bytes, tmp_path: Path) -> tuple[object, ...]:
    """State, misfit and notServed of weights that the store answers so."""
    sha256 = hashlib.sha256(data).hexdigest()
    preparer = Preparer(
        SERVED, 0, {"R1_WEIGHTS_CACHE": str(tmp_path), "R1_PREPARE_DEADLINE_SECONDS": "1"}
    )
    with store(answer) as (url, _):
        info = UpdateInfo("1-1-a", (FileSpec(url, sha256, len(data)),), None)
        preparer.begin(info)
        eventually(lambda: preparer.status(info.key)["state"] != "preparing")
    told = preparer.status(info.key)
    return told["state"], told["misfit"], told["notServed"]


def test_weights_of_the_model_that_is_served_are_ready(tmp_path: Path) -> None:
    assert status(lambda handler, _: send(handler, DATA), DATA, tmp_path) == ("ready", False, False)


def test_weights_of_another_model_are_told_from_those_that_could_not_be_had(tmp_path: Path) -> None:
    other = weights_of(7)
    assert status(lambda handler, _: send(handler, other), other, tmp_path) == (
        "failed",
        True,
        False,
    )


@pytest.mark.parametrize("code", [401, 403, 503])
def test_a_store_that_may_answer_otherwise_in_a_while_is_told(tmp_path: Path, code: int) -> None:
    found = status(lambda handler, _: handler.send_error(code), DATA, tmp_path)
    assert found == ("failed", False, True)


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler, _: send(handler, DATA[:-1] + b"x"),
        lambda handler, _: send(handler, DATA[:-1]),
        lambda handler, _: handler.send_error(404),
    ],
    ids=["altered", "cut", "gone"],
)
def test_a_damaged_file_will_be_no_better_in_a_while(tmp_path: Path, answer: Answer) -> None:
    assert status(answer, DATA, tmp_path) == ("failed", False, False)
