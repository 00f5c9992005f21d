# SPDX-License-Identifier: Apache-2.0
"""Preference data in S3, and runs of prepare over it."""

import base64
import json
from pathlib import Path
from typing import Any

from r1reward_api.constants import Stage
from r1reward_api.wire.manifest import StageManifest
from r1reward_trainer.data.rows import Row
from r1reward_trainer.outcome import Outcome
from r1reward_trainer.stages import prepare
from r1reward_trainer.storage.outputs import download_files
from tests.digits.rows import TEMPLATE, preference_rows
from tests.integration.stages.harness import Workplace

ROWS = preference_rows()[:80]
"""20 images, four rows each."""


def spec_of(workplace: Workplace, model_uri: str, **sections: Any) -> dict[str, Any]:
    data = {
        "preferences": [{"uri": f"{workplace.root}/rows/*.parquet"}],
        "promptTemplate": TEMPLATE,
        "minPixels": 784,
        "maxPixels": 3136,
        "maxPromptTokens": 64,
        "holdout": {"fraction": 0.2},
    }
    return {
        "runtimeRef": {"name": "cpu"},
        "model": {"uri": model_uri},
        "data": data | sections.pop("data", {}),
        "evaluate": {"maxNewTokens": 32},
        **sections,
    }


def run(workplace: Workplace, spec: dict[str, Any]) -> Outcome:
    return prepare.run(workplace.config(spec, Stage.PREPARE), workplace.context(Stage.PREPARE))


def output(workplace: Workplace, manifest: StageManifest, name: str) -> Path:
    found = manifest.outputs[name]
    folder = workplace.folder / f"out-{name}"
    prefix = f"stages/prepare/{manifest.key}/{found.path}"
    download_files(workplace.store, prefix, found.files, folder)
    return folder


def put_jsonl(workplace: Workplace, name: str, records: list[Any]) -> None:
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    store = workplace.open_store(f"{workplace.root}/{Path(name).parent}")
    store.put(Path(name).name, "\n".join(lines).encode())


def record(row: Row, **changes: Any) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in Row.__slots__}
    images = [base64.b64encode(image).decode() for image in row.images]
    return {**values, "images": images, **changes}
