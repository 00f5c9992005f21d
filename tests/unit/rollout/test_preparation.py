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
from tests.unit.rollout.test_download import send, store

SERVED = ServedModel({"lm_head.weight": TensorSpec("F32", (8, 4))}, "F32", False, lambda name: name)


@pytest.mark.parametrize(
    ("rows", "damaged", "state", "misfit"),
    [(8, False, "ready", False), (7, False, "failed", True), (8, True, "failed", False)],
    ids=["the model that is served", "another model", "a damaged file"],
)
def test_another_model_is_told_from_a_file_that_could_not_be_had(
    tmp_path: Path, rows: int, damaged: bool, state: str, misfit: bool
) -> None:
    data = save({"lm_head.weight": torch.zeros(rows, 4)})
    sha256 = hashlib.sha256(data).hexdigest()
    sent = data[:-1] + b"x" if damaged else data
    preparer = Preparer(
        SERVED, 0, {"R1_WEIGHTS_CACHE": str(tmp_path), "R1_PREPARE_DEADLINE_SECONDS": "1"}
    )
    with store(lambda handler, _: send(handler, sent)) as (url, _):
        info = UpdateInfo("1-1-a", (FileSpec(url, sha256, len(data)),), None)
        preparer.begin(info)
        eventually(lambda: preparer.status(info.key)["state"] != "preparing")
    status = preparer.status(info.key)
    assert (status["state"], status["misfit"]) == (state, misfit)
