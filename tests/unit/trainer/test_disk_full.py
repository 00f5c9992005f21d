# SPDX-License-Identifier: Apache-2.0
"""Whatever library meets a full disk, the stage says the same."""

import errno
import os

import pytest
from safetensors import SafetensorError

from r1reward_api.reasons import Reason
from r1reward_api.wire.termination import FailureClass
from r1reward_trainer.outcome import ConfigurationError, as_stage_error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
)
def test_a_full_disk_is_named_with_its_remedy(error: Exception):
    failure = as_stage_error(error)
    assert (failure.reason, failure.failure_class) == (Reason.DISK_FULL, FailureClass.PROGRAM)
    assert "raise `scratch` of the role in the runtime" in failure.message


def test_other_failures_stay_what_they_are():
    known = ConfigurationError(Reason.INVALID_DATA, "no rows")
    assert as_stage_error(known) is known
    assert as_stage_error(OSError(2, "No such file")).reason == Reason.PROGRAM_ERROR
