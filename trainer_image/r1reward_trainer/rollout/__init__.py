# SPDX-License-Identifier: Apache-2.0
"""Rollout servers as the stages see them: a fleet that answers prompts with given weights.

with RolloutFleet(FleetOptions(service=…, job_uid=…), token=…, presign=…) as fleet:
    weights = publisher.publish(step, model_tensors)
    fleet.set_weights(weights)
    results = fleet.generate(requests)
"""

from r1reward_trainer.rollout.fleet import RolloutFleet
from r1reward_trainer.rollout.options import FleetOptions
from r1reward_trainer.rollout.prompts import collapse_image_tokens
from r1reward_trainer.rollout.types import (
    Completion,
    GenerateRequest,
    GenerateResult,
    IdentityRefused,
    NoHealthyServer,
    PromptMismatch,
    RequestRefused,
    RolloutError,
    Sampling,
    ServerStatus,
    ServerUnavailable,
    StaleWeights,
    TensorSpec,
    UpdateTiming,
    WeightFile,
    WeightsMisfit,
    WeightUpdateFailed,
    WeightVersion,
)
from r1reward_trainer.rollout.weights import WeightPublisher, WeightStorage, stored_weights

__all__ = [
    "Completion",
    "FleetOptions",
    "GenerateRequest",
    "GenerateResult",
    "IdentityRefused",
    "NoHealthyServer",
    "PromptMismatch",
    "RequestRefused",
    "RolloutError",
    "RolloutFleet",
    "Sampling",
    "ServerStatus",
    "ServerUnavailable",
    "StaleWeights",
    "TensorSpec",
    "UpdateTiming",
    "WeightFile",
    "WeightPublisher",
    "WeightStorage",
    "WeightUpdateFailed",
    "WeightVersion",
    "WeightsMisfit",
    "collapse_image_tokens",
    "stored_weights",
]
