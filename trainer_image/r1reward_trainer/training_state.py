# SPDX-License-Identifier: Apache-2.0
"""Model and optimizer state as safetensors, one set of files per process.

Each process writes the rows that it holds; a file's header says which. Any number
of processes can read it back, each the rows that it now holds. Nothing is unpickled.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.sharding import reshard

MAX_FILE_BYTES = 2 << 30
"""A file is held in memory while it is written."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Local:
    """The rows of a tensor that this process holds.

    Attributes:
        rows: a view; writing to it writes the tensor.
        start: its first row in the whole tensor.
        shape: of the whole tensor.
    """

    rows: Tensor
    start: int
    shape: tuple[int, ...]


def local_rows(tensor: Tensor) -> Local:
    """What this process holds of a tensor: all of a plain one, its shard of FSDP2's."""
    if not isinstance(tensor, DTensor):
        return Local(tensor.detach(), 0, tuple(tensor.shape))
    if tuple(tensor.placements) != (Shard(0),):
        raise ValueError(f"expected rows to be sharded, found {tensor.placements}")
    chunk = -(-tensor.shape[0] // tensor.device_mesh.size())
    start = min(chunk * tensor.device_mesh.get_local_rank(), tensor.shape[0])
    return Local(tensor.to_local().detach(), start, tuple(tensor.shape))


def save_state(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, rank: int
) -> None:
    """Writes what this process holds into `rank-<n>-<i>.safetensors` of a folder.

    Raises:
        RuntimeError: the optimizer has state, but none of one of the parameters: it could not be
            restored.
    """
    reshard(module)
    group: dict[str, Tensor] = {}
    layout: dict[str, list[int]] = {}
    size = files = 0

    def flush() -> None:
        nonlocal files
        path = folder / f"rank-{rank:05}-{files:05}.safetensors"
        save_file(group, path, metadata={"layout": json.dumps(layout)})
        files += 1
        group.clear()
        layout.clear()

    folder.mkdir(parents=True, exist_ok=True)
    for name, tensor in _state(module, optimizer):
        local = local_rows(tensor)
        if local.rows.numel() == 0 or (rank > 0 and not isinstance(tensor, DTensor)):
            continue  # nothing here, or the same on every process
        if group and size + local.rows.nbytes > MAX_FILE_BYTES:
            flush()
            size = 0
        group[name] = local.rows.cpu().contiguous()
        layout[name] = [local.start, *local.shape]
        size += local.rows.nbytes
    if group:
        flush()


def load_state(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fills module and optimizer in place from the files of any number of processes.

    Raises:
        ConfigurationError: ArtifactCorrupt, when a tensor is missing, incomplete or of another
            shape.
    """
    _make_optimizer_state(optimizer)
    places = _places(folder)
    for name, tensor in _state(module, optimizer):
        local = local_rows(tensor)
        filled = 0
        for path, start, shape in places.get(name, ()):
            if shape != local.shape:
                raise _corrupt(f"tensor {name} has shape {list(shape)}, not {list(local.shape)}")
            filled += _copy_overlap(path, name, start, local)
        expected = local.rows.shape[0] if local.shape else 1
        if filled != expected:
            raise _corrupt(f"tensor {name} has {filled} of the {expected} rows wanted")


def _copy_overlap(path: Path, name: str, start: int, local: Local) -> int:
    """Copies the rows that file and process have in common; returns how many."""
    with safe_open(path, framework="pt") as opened:
        part = opened.get_slice(name)
        if not local.shape:
            local.rows.copy_(opened.get_tensor(name))
            return 1
        first = max(start, local.start)
        last = min(start + part.get_shape()[0], local.start + local.rows.shape[0])
        if first >= last:
            return 0
        local.rows[first - local.start : last - local.start].copy_(
            part[first - start : last - start]
        )
        return last - first


def _places(folder: Path) -> dict[str, list[tuple[Path, int, tuple[int, ...]]]]:
    """File, first row and whole shape of every piece, by tensor."""
    places: dict[str, list[tuple[Path, int, tuple[int, ...]]]] = {}
    for path in sorted(folder.glob("rank-*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            layout = json.loads((opened.metadata() or {})["layout"])
        for name, (start, *shape) in layout.items():
            places.setdefault(name, []).append((path, start, tuple(shape)))
    return places


def _state(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and AdamW's moments and step count, under stable names."""
    for name, parameter in module.named_parameters():
        yield f"model/{name}", parameter
        if state := optimizer.state.get(parameter):
            for moment in _MOMENTS:
                yield f"{moment}/{name}", state[moment]
            yield f"step/{name}", state["step"]
        elif optimizer.state and parameter.requires_grad:
            raise RuntimeError(f"the optimizer has no state of {name}")


def _make_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """AdamW makes its state at the first step: one at rate 0 with no gradient changes nothing."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _corrupt(message: str) -> ConfigurationError:
    return ConfigurationError(
        Reason.ARTIFACT_CORRUPT,
        f"checkpoint: {message}; create the job under another name to start anew",
    )
