# SPDX-License-Identifier: Apache-2.0
"""Small jobs: the example's whole chain in a few minutes. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from tests.e2e import digits_job

RUNTIME = "cpu-soak"
SMALL: Final[Mapping[str, Any]] = {
    "runtimeRef": {"name": RUNTIME},
    "data": {"maxRows": 800},
    "annotate": {"maxRows": 96},
    "sft": {"maxSteps": 60, "batchSize": 16, "checkpoint": {"everySteps": 10}},
    "rl": {
        "maxSteps": 4,
        "sampling": {"promptsPerStep": 16},
        "miniBatchSize": 16,
        "microBatchSize": 16,
        "checkpoint": {"everySteps": 1},
    },
    "evaluate": {"maxRows": 8, "votes": [1], "bootstrapSamples": 100},
    # Faults come one a minute: only a job that does not come to its end by itself fails.
    "policy": {"backoffLimit": 5, "infrastructureLimit": 50},
}


def small_job(name: str, seed: int, **sections: Mapping[str, Any] | None) -> dict[str, Any]:
    """A job of which nothing comes from another one's cache.

    Args:
        name: of the job.
        seed: of its rows; another one for every job.
        sections: further changes to the spec, merged.
    """
    job = digits_job.digits_job(name, **digits_job.merged(SMALL, {"data": {"seed": seed}}))
    job["spec"] = digits_job.merged(job["spec"], sections)
    return job


def runtime(name: str = RUNTIME) -> dict[str, Any]:
    """The example's runtime with requests so small that two jobs fit on two cores."""
    found = digits_job.load("digits/runtime.yaml")
    found["metadata"]["name"] = name
    roles = found["spec"]["roles"]
    # YAML anchors: the roles share their mappings, and a change to one must not reach another.
    found["spec"]["roles"] = {role: digits_job.merged(roles[role], {}) for role in roles}
    for role in found["spec"]["roles"].values():
        role["resources"]["requests"] = {"cpu": "50m", "memory": "256Mi"}
    return found
