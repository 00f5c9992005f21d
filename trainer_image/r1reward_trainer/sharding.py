# SPDX-License-Identifier: Apache-2.0
"""FSDP2 around a model. Needs torch alone."""

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard


def shard(root: nn.Module, model: Any, *, dtype: torch.dtype, mesh: DeviceMesh) -> None:
    """Shards each decoder layer and vision block of a model, then what is left of the root.

    Parameters stay as they are (float32) in the optimizer; the passes compute in `dtype` and
    gradients are reduced in float32. One float32 process needs none of it: its tensors stay
    plain.

    Args:
        root: whose forward pass is the training step's.
        model: a transformers model inside it.
        dtype: of computation.
        mesh: one dimension over all processes.
    """
    if mesh.size() == 1 and dtype == torch.float32:
        return
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    whole = set(model._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in whole:
            fully_shard(module, mesh=mesh, mp_policy=precision)
    fully_shard(root, mesh=mesh, mp_policy=precision)


def reshard(root: nn.Module) -> None:
    """Gives every parameter back as the shard that the optimizer knows.

    After a forward pass without a backward pass, FSDP2 leaves the root's parameters gathered and
    in the precision of computation.
    """
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
