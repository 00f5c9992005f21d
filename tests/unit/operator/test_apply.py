# SPDX-License-Identifier: Apache-2.0
"""What a refusal of the API server means for a job."""

import pytest

from r1reward_operator.apply import classify
from r1reward_operator.kube.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    OwnedByAnother,
    Unavailable,
)

WANTED = {"kind": "Job", "metadata": {"name": "a-prepare-1"}}
TERMINATING = {"causes": [{"reason": "NamespaceTerminating"}]}
BLOCKS: dict[str, tuple[ApiError | OwnedByAnother, bool]] = {
    "Quota": (Forbidden(403, "Forbidden", 'exceeded quota: team, requested: count/jobs=1'), False),
    "Admission": (Forbidden(403, "Forbidden", 'violates PodSecurity "restricted"'), False),
    "Admission, by a webhook": (
        Invalid(400, "BadRequest", 'admission webhook "v.x" denied the request: no'), False,
    ),
    "Admission, by a policy": (
        Invalid(
            422, "Invalid",
            "jobs.batch \"a-prepare-1\" is forbidden: ValidatingAdmissionPolicy 'team' with "
            "binding 'team' denied request: failed expression: object.spec.x",
        ),
        False,
    ),
    "Admission, by a policy that says who may": (
        ApiError(
            401, "Unauthorized",
            "jobs.batch \"a-prepare-1\" is forbidden: ValidatingAdmissionPolicy 'team' with "
            "binding 'team' denied request: who are you",
        ),
        False,
    ),
    "Dependency": (NotFound(404, "NotFound", "the server could not find the requested"), False),
    "Dependency, a webhook that is down": (
        Unavailable(500, "InternalError", 'failed calling webhook "v.x": refused'), False,
    ),
    "NameCollision": (OwnedByAnother("Job n/a-prepare-1 already exists", {}), False),
    "InvalidSpec": (Invalid(422, "Invalid", "spec.affinity: Invalid value"), True),
}  # fmt: skip


@pytest.mark.parametrize("case", BLOCKS)
def test_a_refusal_is(case: str):
    error, final = BLOCKS[case]
    obstacle = classify(error, WANTED)
    assert obstacle is not None
    assert (obstacle.blocked.reason, obstacle.final) == (case.split(",")[0], final)
    assert "a-prepare-1" in obstacle.blocked.message or case == "Dependency"


@pytest.mark.parametrize(
    "error",
    [
        Unavailable(0, "", "connection refused"),
        Conflict(409, "Conflict", "the object has been modified"),
        Forbidden(403, "Forbidden", "namespace is being terminated", details=TERMINATING),
    ],
)
def test_faults_that_are_no_business_of_the_job_are_only_tried_again(error: ApiError):
    assert classify(error, WANTED) is None
