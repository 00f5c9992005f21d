# SPDX-License-Identifier: Apache-2.0
"""What the pod's environment says: the one place that reads environment variables of ours."""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from r1reward_api import constants
from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.outcome import ConfigurationError


@dataclass(frozen=True)
class Environment:
    """Paths and ranks of this process.

    Attributes:
        run_config: file with the run configuration.
        token_file: file with the attempt's token.
        progress_token_file: file with the token for the progress endpoint.
        termination_log: where the termination message goes.
        scratch: writable folder.
        models: folder of the model volume.
        rank, local_rank, world_size: as torchrun sets them.
        fetch_uri: model that fetch-model downloads instead of the stage's own.
        server_token_file: where a served model is: file with the token of the vLLM server in its
            pod, which fetch-model makes and only that pod knows.
    """

    run_config: Path
    token_file: Path
    progress_token_file: Path
    termination_log: Path
    scratch: Path
    models: Path
    rank: int
    local_rank: int
    world_size: int
    fetch_uri: str | None = None
    server_token_file: Path | None = None

    @classmethod
    def from_env(cls) -> "Environment":
        """Reads R1_* variables; the defaults are the paths of the pods."""

        def path(name: str, default: str) -> Path:
            return Path(os.environ.get(name, default))

        return cls(
            run_config=path("R1_RUN_CONFIG", constants.RUN_CONFIG_PATH),
            token_file=path("R1_TOKEN_FILE", constants.ATTEMPT_TOKEN_PATH),
            progress_token_file=path("R1_PROGRESS_TOKEN_FILE", constants.PROGRESS_TOKEN_PATH),
            termination_log=path("R1_TERMINATION_LOG", "/dev/termination-log"),
            scratch=path("R1_SCRATCH", constants.SCRATCH_PATH),
            models=path("R1_MODELS", constants.MODEL_PATH),
            rank=int(os.environ.get("RANK", "0")),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
            fetch_uri=os.environ.get("R1_FETCH_URI") or None,
            server_token_file=path("R1_SERVER_TOKEN_FILE", "")
            if os.environ.get("R1_SERVER_TOKEN_FILE")
            else None,
        )

    def tail(self, verb: str) -> Path:
        """Where the last output of `r1 <verb>` is kept."""
        return self.scratch / f"{verb}-{self.rank}.tail"

    def load_config(self) -> RunConfig:
        """The run configuration.

        Raises:
            ConfigurationError: when the file is missing or does not fit.
        """
        try:
            return RunConfig.model_validate_json(self.run_config.read_bytes())
        except OSError as error:
            raise ConfigurationError(
                Reason.INVALID_SPEC, f"run configuration {self.run_config}: {error.strerror}"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(p) for p in first["loc"])
            raise ConfigurationError(
                Reason.INVALID_SPEC,
                f"run configuration: {field}: {first['msg']}; "
                "operator and trainer image must be of the same release",
            ) from error

    def load_token(self) -> str | None:
        """The attempt's token, None where the stage has no services."""
        try:
            return self.token_file.read_text().strip()
        except FileNotFoundError:
            return None
