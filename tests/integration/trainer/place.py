# SPDX-License-Identifier: Apache-2.0
"""A namespace's storage with a finished prepare stage, and runs of sft and rl in it."""

import io
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from r1reward_api.constants import Stage
from r1reward_api.wire.manifest import Output
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.context import StageContext
from r1reward_trainer.data.rows import AnnotatedRow, write_rows
from r1reward_trainer.progress import ProgressReporter
from r1reward_trainer.storage.outputs import publish, upload_output
from r1reward_trainer.storage.s3 import Store

ROWS = 24
TOKEN = "integration-token-0123456789"

Hook = Callable[[int], None]


class WatchedProgress(ProgressReporter):
    """Calls a test's hook after each step, in the loop's own thread."""

    def __init__(self, stage: str, attempt: int, hook: Hook) -> None:
        super().__init__(stage, attempt, None, Path("/nonexistent"))
        self._hook = hook

    def update(
        self,
        step: int | None = None,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
        message: str | None = None,
    ) -> None:
        super().update(step, total, metrics, message)
        if metrics is not None and step is not None:
            self._hook(step)


class Place:
    """Storage of one namespace, with a model and annotated rows published by prepare.

    Args:
        environ: of the S3 server's clients.
        folder: for scratch folders.
        model: folder of the starting model.
        rows: annotated rows; None: `noise()`.
        root: of another place in the same storage; None: a new one.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: Path,
        model: Path,
        rows: Sequence[AnnotatedRow] | None = None,
        root: str | None = None,
    ) -> None:
        self.environ = environ
        self.folder = folder
        self.root = root or f"s3://{environ['R1_BUCKET']}/{uuid.uuid4().hex}"
        self.store = Store(f"{self.root}/team", environ)
        self._prepare_key = uuid.uuid4().hex
        rows = noise() if rows is None else rows
        write_rows(folder / "rows", rows, AnnotatedRow)
        config = self._config(Stage.PREPARE, self._prepare_key, {}, {}, "prepare", 1, {})
        self._outputs = {
            "model": upload_output(self.store, config, "model", model),
            "rows": upload_output(self.store, config, "rows", folder / "rows", len(rows)),
        }
        publish(self.store, config, self._outputs, {})

    def config(
        self,
        stage: Stage,
        section: Mapping[str, Any],
        *,
        uid: str = "uid",
        attempt: int = 1,
        serving: Mapping[str, Any] | None = None,
        services: Mapping[str, Any] | None = None,
    ) -> RunConfig:
        """Configuration of a run; another `uid` is another run, with a key of its own."""
        rows_input = "chains" if stage is Stage.SFT else "rows"
        inputs = {"model": "model", rows_input: "rows"}
        return self._config(
            stage, f"key-{uid}", {stage.value: section}, inputs, uid, attempt,
            {"serving": {"dtype": "float32", "maxModelLength": 256, **(serving or {})},
             "services": services or {}},
        )  # fmt: skip

    def context(
        self, config: RunConfig, after_step: Callable[[StageContext, int], None] | None = None
    ) -> StageContext:
        """A context with an empty scratch folder; `after_step` is called in the loop."""
        scratch = self.folder / uuid.uuid4().hex / "rank-0"
        scratch.mkdir(parents=True)

        def hook(step: int) -> None:
            if after_step is not None:
                after_step(context, step)

        context = StageContext(
            store=self.store,
            open_store=lambda uri: Store(uri, self.environ),
            progress=WatchedProgress(config.stage.value, config.attempt, hook),
            stop=threading.Event(),
            scratch=scratch,
            token=TOKEN,
        )
        return context

    def file(self, config: RunConfig, output: Output, path: str) -> bytes:
        """A file of an output of the run's stage."""
        return self.store.get(f"{config.stage_prefix}/{output.path}/{path}")

    def _config(
        self,
        stage: Stage,
        key: str,
        sections: Mapping[str, Any],
        inputs: Mapping[str, str],
        uid: str,
        attempt: int,
        rest: Mapping[str, Any],
    ) -> RunConfig:
        spec = {
            "runtimeRef": {"name": "runtime"},
            "model": {"uri": "hf://organisation/model"},
            "storage": {"uri": self.root, "secretRef": {"name": "s3"}},
            "data": {
                "preferences": [{"uri": f"{self.root}/rows/*.parquet"}],
                "promptTemplate": "{question} {answer1} {answer2}",
                "minPixels": 784,
                "maxPixels": 3136,
            },
            **sections,
        }
        if "sft" in sections:
            spec["sft"] = {"chains": f"{self.root}/rows", **sections["sft"]}
        if "rl" in sections:
            spec["rl"] = {"rows": "All", **sections["rl"]}
        return RunConfig.model_validate(
            {
                "job": {"name": "job", "namespace": "team", "uid": uid},
                "stage": stage.value,
                "attempt": attempt,
                "key": key,
                "spec": spec,
                "serving": {},
                "inputs": {
                    name: {
                        "stage": "prepare",
                        "key": self._prepare_key,
                        "output": output,
                        "digest": self._outputs[output].digest,
                    }
                    for name, output in inputs.items()
                },
                **rest,
            }
        )


def noise() -> list[AnnotatedRow]:
    """Noise images of two sizes, prompts and chains of several lengths, one row without image."""
    return [
        AnnotatedRow(
            id=f"row-{i}",
            question="?" * (1 + i % 5),
            answer1="left",
            answer2="right",
            gold=1 + i % 2,
            images=() if i == 7 else (_png(i, 28 + 28 * (i % 2)),),
            source="noise",
            response=f"<think>{'x' * (i % 3)}</think><answer>{1 + i % 2}</answer>",
            attempts=1,
            teacher="teacher",
            temperature=0.0,
        )
        for i in range(ROWS)
    ]


def _png(seed: int, width: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (56, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
