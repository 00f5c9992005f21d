# SPDX-License-Identifier: Apache-2.0
"""What is kept of a step's answers lets a person see why each was rewarded."""

import json

from r1reward_api.resource.training import Algorithm
from r1reward_trainer.method.reasons import ConsistencyReason
from r1reward_trainer.render import Renderer
from r1reward_trainer.sampling import Answer
from r1reward_trainer.stages.rl import ANSWERS_KEPT_PER_STEP, transcripts
from r1reward_trainer.verifier.protocol import Sample
from r1reward_trainer.verifier.scoring import Scoring
from tests.unit.evaluation.builders import row

RESPONSES = {
    "<think>so 1</think><answer>1</answer>": ("gold", "well_formed", "judge_out"),
    "<think>so 2</think>\n<answer>2</answer>": ("not_gold", "text_between_blocks", "judge_out"),
    "1 it is": ("no_answer_tag", "no_think_tag", "judge_out"),
    "<think></think><answer>one</answer>": ("answer_not_a_digit", "well_formed", "judge_out"),
}


def test_the_stored_answers_carry_the_reason_of_each_term_of_their_reward(renderer: Renderer):
    ids = [tuple(renderer.response_ids(text)) for text in [*RESPONSES, *RESPONSES]]
    answers = [
        Answer(f"0-0-{i}", 0, own, tuple(0.0 for _ in own), False) for i, own in enumerate(ids)
    ]
    rewards = [
        Scoring(Algorithm()).reward(
            Sample(id=answer.id, response=renderer.decode(answer.response_ids), gold=1),
            ConsistencyReason.JUDGE_OUT,
        )
        for answer in answers
    ]
    lines = list(transcripts(7, answers, rewards, [row(0)], renderer))
    assert len(lines) == ANSWERS_KEPT_PER_STEP == len(RESPONSES)
    kept = json.loads(json.dumps(lines))
    assert [line["reasons"] for line in kept] == [
        dict(zip(("result", "format", "consistency"), why, strict=True))
        for why in RESPONSES.values()
    ]
    assert [line["reward"] for line in kept] == [1.5, 0.0, 0.0, 0.5]
