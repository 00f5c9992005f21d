# SPDX-License-Identifier: Apache-2.0
"""How a stage's failure reaches people."""

from r1reward_api.constants import Stage
from r1reward_api.wire.termination import Termination
from r1reward_trainer.outcome import as_stage_error


def test_a_failure_over_text_that_is_no_unicode_is_still_told():
    error = as_stage_error(ValueError("cannot take '\ud800'"))
    told = Termination(stage=Stage.PREPARE, attempt=1, outcome="Failed", message=error.message)
    assert "ValueError: cannot take '?'" in told.encode()
