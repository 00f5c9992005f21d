# SPDX-License-Identifier: Apache-2.0
"""What a failure of the rollout servers costs a stage."""

from collections.abc import Iterator
from contextlib import contextmanager

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError, ProgramError
from r1reward_trainer.rollout.types import (
    NoHealthyServer,
    RolloutError,
    WeightsMisfit,
    WeightUpdateFailed,
    WeightVersion,
)
from r1reward_trainer.storage.outputs import verify_files
from r1reward_trainer.storage.s3 import Store


@contextmanager
def rollout_errors() -> Iterator[None]:
    """Turns the fleet's errors into the stage's.

    Raises:
        ConfigurationError: InvalidModel, when the weights are of another model than every server
            serves.
        InfrastructureError: RolloutUnavailable, when no server can be used.
        ProgramError: when a server refuses what it was sent.
    """
    try:
        yield
    except WeightsMisfit as error:
        raise ConfigurationError(
            Reason.INVALID_MODEL,
            f"{error}; weights can only be exchanged between models of one architecture, "
            "vocabulary and dtype",
        ) from error
    except (NoHealthyServer, WeightUpdateFailed) as error:
        raise InfrastructureError(Reason.ROLLOUT_UNAVAILABLE, str(error)) from error
    except RolloutError as error:
        raise ProgramError(Reason.PROGRAM_ERROR, f"rollout: {error}") from error


@contextmanager
def stored_weight_errors(store: Store, weights: WeightVersion) -> Iterator[None]:
    """As `rollout_errors`, for weights that an earlier stage has left in storage.

    Raises:
        ConfigurationError: ArtifactCorrupt, when no server takes the weights because they are not
            what their manifest says: in no later attempt would one.
    """
    try:
        with rollout_errors():
            yield
    except InfrastructureError as error:
        if isinstance(error.__cause__, WeightUpdateFailed):
            verify_files(store, [(file.key, file.sha256) for file in weights.files])
        raise
