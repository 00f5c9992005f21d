# SPDX-License-Identifier: Apache-2.0
"""The custom resources: R1RewardJob, R1RewardRuntime and ClusterR1RewardRuntime."""

from r1reward_api.resource.job import R1RewardJob, R1RewardJobSpec
from r1reward_api.resource.runtime import (
    ClusterR1RewardRuntime,
    R1RewardRuntime,
    R1RewardRuntimeSpec,
)
from r1reward_api.resource.status import R1RewardJobStatus

__all__ = [
    "ClusterR1RewardRuntime",
    "R1RewardJob",
    "R1RewardJobSpec",
    "R1RewardJobStatus",
    "R1RewardRuntime",
    "R1RewardRuntimeSpec",
]
