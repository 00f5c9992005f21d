# SPDX-License-Identifier: Apache-2.0
import ast
from pathlib import Path

import pytest

from r1reward_api.constants import Stage
from r1reward_trainer import codedigest

PACKAGE = Path(codedigest.__file__).parent
PLUMBING = {
    "api_key.py",
    "cli.py",
    "codedigest.py",
    "context.py",
    "data/rows.py",
    "distributed.py",
    "entry.py",
    "environment.py",
    "logs",
    "outcome.py",
    "progress.py",
    "ray_processes.py",
    "retry_after.py",
    "rollout/client.py",
    "rollout/connection.py",
    "rollout/controller.py",
    "rollout/discovery.py",
    "rollout/dispatch.py",
    "rollout/failures.py",
    "rollout/fleet.py",
    "rollout/options.py",
    "rollout/prompts.py",
    "rollout/queue.py",
    "rollout/server.py",
    "rollout/weights.py",
    "service_url.py",
    "services.py",
    "storage",
    "training_state.py",
}
"""Moves data and reports; decides nothing about a result."""


def imported(path: Path) -> set[Path]:
    """Files of the package that a file imports."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("r1reward_trainer."):
                module = PACKAGE.joinpath(*name.split(".")[1:])
                found |= {
                    p for p in (module.with_suffix(".py"), module / "__init__.py") if p.exists()
                }
    return found


def within(path: Path, names: set[str]) -> bool:
    relative = path.relative_to(PACKAGE).as_posix()
    return any(relative == name or relative.startswith(f"{name}/") for name in names)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_stages_digest_counts_every_file_that_can_change_its_result(stage: Stage):
    counted = set(codedigest.STAGE_CODE[stage])
    waiting = [PACKAGE / "stages" / f"{stage.value}.py"]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or within(path, PLUMBING):
            continue
        seen.add(path)
        waiting += imported(path)
    left_out = [p.relative_to(PACKAGE).as_posix() for p in seen if not within(p, counted)]
    assert sorted(p for p in left_out if not p.endswith("__init__.py")) == []


@pytest.mark.parametrize("stage", list(Stage))
def test_what_a_digest_counts_is_there(stage: Stage):
    assert [n for n in codedigest.STAGE_CODE[stage] if not (PACKAGE / n).exists()] == []


def test_each_stage_has_a_digest_of_its_own():
    digests = codedigest.code_digests()
    assert set(digests) == {stage.value for stage in Stage}
    assert len(set(digests.values())) == len(Stage)
