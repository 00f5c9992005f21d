# SPDX-License-Identifier: Apache-2.0
import uuid
from pathlib import Path
from typing import Any

import pytest

from r1reward_trainer.data.rows import Row, write_rows
from tests.digits.model import build_model
from tests.integration.stages.harness import Workplace
from tests.integration.stages.pod import Pod
from tests.integration.stages.preparing import ROWS, spec_of


@pytest.fixture
def workplace(s3: dict[str, str], tmp_path: Path) -> Workplace:
    """Storage of its own below a fresh prefix."""
    return Workplace(s3, tmp_path, f"s3://{s3['R1_BUCKET']}/{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model."""
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model_uri(workplace: Workplace, model_folder: Path) -> str:
    """The digits model in S3."""
    uri = f"{workplace.root}/base"
    store = workplace.open_store(uri)
    for file in model_folder.iterdir():
        store.put_file(file, file.name)
    return uri


@pytest.fixture
def spec(workplace: Workplace, model_uri: str, tmp_path: Path) -> dict[str, Any]:
    """Of a job over ROWS, which lie in S3 as Parquet."""
    write_rows(tmp_path / "rows", ROWS, Row)
    workplace.open_store(f"{workplace.root}/rows").put_file(
        tmp_path / "rows/part-00000.parquet", "part-00000.parquet"
    )
    return spec_of(workplace, model_uri)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Pod:
    """Runs stages as their pods would."""
    return Pod(tmp_path, monkeypatch, caplog)
