# SPDX-License-Identifier: Apache-2.0
"""The weight-transfer engine ``object_store``.

vLLM's engines usually re-initialise the model in ``start_weight_update``, load in
``update_weights`` and finalise in ``finish_weight_update``; an error in between leaves
parameters on the meta device, and the next request kills the server. Here everything that can
go wrong happens before ``finish_weight_update``, which alone touches the model, so that after
any error the old weights are exactly what they were. Should finish itself fail, there is no
way back: the process ends, and the kubelet starts a new one.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from r1reward_rollout.preparation import Preparer
from r1reward_rollout.served import Canonical, ServedModel
from r1reward_rollout.update_info import UpdateInfo, parse_update_info

logger = logging.getLogger("vllm.r1reward.engine")

_BROKEN_MODEL_EXIT_CODE = 86

_SAFETENSORS_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


@dataclass
class ObjectStoreInitInfo(WeightTransferInitInfo):
    """Nothing needs to be set up: every update says where its files are."""


@dataclass
class ObjectStoreUpdateInfo(WeightTransferUpdateInfo):
    """The wire form of :class:`r1reward_rollout.update_info.UpdateInfo`, unchecked."""

    version: str
    files: list[dict[str, Any]]
    tensors: dict[str, dict[str, Any]] | None = None


def canonical_names(model: torch.nn.Module) -> Canonical:
    """Where the model's loader places a checkpoint's tensor, without fusing any."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is None:
        return lambda name: name
    rename: Callable[[str], str | None] = mapper.get_rename_mapper().map_name
    return rename


class ObjectStoreWeightTransferEngine(
    WeightTransferEngine[ObjectStoreInitInfo, ObjectStoreUpdateInfo]
):
    """Loads safetensors that were fetched and verified before the pause."""

    init_info_cls = ObjectStoreInitInfo
    update_info_cls = ObjectStoreUpdateInfo
    supports_draft_weight_update = False

    def __init__(
        self, config: Any, vllm_config: Any, device: torch.device, model: torch.nn.Module
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        model_config = vllm_config.model_config
        served = ServedModel.of_folder(
            Path(model_config.model),
            dtype=_SAFETENSORS_DTYPES[model_config.dtype],
            tied=bool(
                getattr(model_config.hf_config.get_text_config(), "tie_word_embeddings", False)
                or getattr(model_config.hf_config, "tie_word_embeddings", False)
            ),
            canonical=canonical_names(model),
        )
        self.preparer = Preparer(served, vllm_config.parallel_config.rank, os.environ)
        self._opened: ExitStack | None = None
        self._files: list[Any] = []
        self._info: UpdateInfo | None = None

    def init_transfer_engine(self, init_info: ObjectStoreInitInfo) -> None:
        """Nothing to do."""

    def start_weight_update(self) -> None:
        """Forget a session that was left unfinished; the model is not touched."""
        self._forget()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Select the prepared files. (The base class would synchronise an accelerator.)"""
        self._forget()
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: ObjectStoreUpdateInfo) -> None:
        """Open the verified files, so that even their removal cannot make finish fail."""
        info = parse_update_info(
            {
                "version": update_info.version,
                "files": update_info.files,
                "tensors": update_info.tensors,
            }
        )
        with ExitStack() as opened:
            self._files = [
                opened.enter_context(safe_open(path, framework="pt", device="cpu"))
                for path in self.preparer.take(info)
            ]
            self._opened = opened.pop_all()
        self._info = info

    def finish_weight_update(self) -> None:
        """Put the selected weights into the model: the only place that touches it."""
        if self._info is None:
            raise RuntimeError("finish_weight_update without weights: call update_weights first")
        try:
            initialize_layerwise_reload(self.model)
            self.model.load_weights(self._tensors())  # pyright: ignore[reportCallIssue]
            finalize_layerwise_reload(self.model, self.model_config)
            if self.device.type != "cpu":
                torch.accelerator.synchronize()
        except BaseException:
            _end_process(self._info.version)
        logger.info("loaded weights %s", self._info.version)
        self.preparer.loaded(self._info)
        self._forget()

    def shutdown(self) -> None:
        """Stop a running preparation."""
        self.preparer.close()
        self._forget()

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for opened in self._files:
            for name in opened.keys():  # noqa: SIM118  it is no dict
                yield name, opened.get_tensor(name)

    def _forget(self) -> None:
        self._info, self._files = None, []
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _end_process(version: str) -> NoReturn:
    """A half-loaded model must answer nothing: no handler, no cleanup, no second chance."""
    logger.exception("loading weights %s failed half-way: the process ends", version)
    for handler in logging.getLogger("vllm").handlers:
        handler.flush()
    os._exit(_BROKEN_MODEL_EXIT_CODE)
