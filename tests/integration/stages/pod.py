# SPDX-License-Identifier: Apache-2.0
"""A stage as its pod runs it, but in this process: its exit code, last message and log."""

import logging
import signal
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1reward_api.wire.runconfig import RunConfig
from r1reward_api.wire.termination import Termination
from r1reward_trainer.cli import run_stage
from r1reward_trainer.environment import Environment
from r1reward_trainer.storage import s3
from r1reward_trainer.storage.patience import Patience
from tests.clock import FakeClock


@dataclass(frozen=True)
class End:
    """How it ended.

    Attributes:
        code: the exit code.
        message: the termination message.
        text: the termination message as it is written, and all that was logged.
        waited: seconds that went by in pauses.
    """

    code: int
    message: Termination
    text: str
    waited: float


def environment_in(folder: Path, config: RunConfig, fetch_uri: str | None = None) -> Environment:
    """What a pod's environment says, with all of its files in one folder."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(config.model_dump_json(by_alias=True))
    return Environment(
        run_config=folder / "run.json",
        token_file=folder / "token",
        progress_token_file=folder / "progress",
        termination_log=folder / "termination",
        scratch=folder / "scratch",
        models=folder / "models",
        rank=0,
        local_rank=0,
        world_size=1,
        fetch_uri=fetch_uri,
    )


class Pod:
    """Runs stages with an environment, waiting by a clock that takes no time."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
    ) -> None:
        self._folder = folder
        self._patch = patch
        self._log = log
        self.clock = FakeClock()

    def run(self, config: RunConfig, environ: Mapping[str, str], token: str = "") -> End:
        """Runs the stage of a configuration."""
        folder = self._folder / f"pod-{uuid.uuid4().hex}"
        where = environment_in(folder, config)
        if token:
            where.token_file.write_text(token)
        for name, value in environ.items():
            self._patch.setenv(name, value)
        clock = self.clock
        self._patch.setattr(
            s3, "Patience", lambda: Patience(clock=clock.monotonic, sleep=clock.advance)
        )
        self._log.set_level(logging.DEBUG)
        self._log.set_level(logging.WARNING, "httpx")  # as the entry point does
        self._log.clear()
        begin = clock.monotonic()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            code = run_stage(config.stage, where)
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
        written = where.termination_log.read_text()
        message = Termination.decode(written)
        assert message is not None
        return End(code, message, written + self._log.text, clock.monotonic() - begin)
