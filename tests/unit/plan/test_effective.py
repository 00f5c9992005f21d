# SPDX-License-Identifier: Apache-2.0
"""What a job may change of its runtime."""

import pytest

from r1reward_api.constants import Role
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import R1RewardRuntimeSpec
from r1reward_operator.plan.effective import Refused, effective_runtime
from tests.unit.plan.simulation import example_runtime, example_spec

REFUSALS = {
    "spec.overrides.trainerImage is set, but the runtime allows to override only: resources": (
        {"overrides": {"trainerImage": "other"}}, {"allowedOverrides": ["resources"]},
    ),
    "spec.overrides.rolloutImage is evil/x; the runtime allows images that begin with: good/": (
        {"overrides": {"rolloutImage": "evil/x"}},
        {"allowedOverrides": ["image"], "allowedImagePrefixes": ["good/"]},
    ),
    "spec.overrides.roles.rollout.env is set": (
        {"overrides": {"roles": {"rollout": {"env": [{"name": "A"}]}}}},
        {"allowedOverrides": []},
    ),
    "spec.evaluate.rolloutReplicas is 5; the runtime allows at most 4": (
        {"evaluate": {"rolloutReplicas": 5}}, {"limits": {"rolloutReplicas": 4}},
    ),
    "spec.rl.verifier.judge.replicas is 5; the runtime allows at most 4": (
        {"rl": {"verifier": {"judge": {"model": "hf://team/judge", "replicas": 5}}}},
        {"limits": {"rolloutReplicas": 4}},
    ),
    "spec.sft.workers is 3; the runtime allows at most 2": (
        {"sft": {"workers": 3}}, {"limits": {"workers": 2}},
    ),
    "spec.rl.verifier.replicas is 2; the runtime allows at most 1": (
        {}, {"limits": {"verifierReplicas": 1}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSALS)
def test_a_refusal_names_the_field_the_value_and_what_is_allowed(message: str):
    job, runtime = REFUSALS[message]
    with pytest.raises(Refused) as refused:
        effective_runtime(
            R1RewardRuntimeSpec.model_validate(example_runtime(**runtime)),
            R1RewardJobSpec.model_validate(example_spec(**job)),
        )
    assert refused.value.message.startswith(message)


def test_allowed_overrides_replace_and_variables_are_added():
    runtime = R1RewardRuntimeSpec.model_validate(
        example_runtime(
            allowedOverrides=["image", "env", "nodeSelector"],
            allowedImagePrefixes=["good/"],
            roles={"rollout": {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]}},
        )
    )
    overrides = {
        "rolloutImage": "good/rollout",
        "roles": {
            "rollout": {"env": [{"name": "B", "value": "2"}, {"name": "C", "value": "2"}]},
            "trainer": {"nodeSelector": {"zone": "b"}},
        },
    }
    spec = R1RewardJobSpec.model_validate(example_spec(overrides=overrides))
    made = effective_runtime(runtime, spec)
    assert made.images.rollout == "good/rollout"
    assert made.images.trainer == runtime.images.trainer
    env = {e.name: e.value for e in made.roles[Role.ROLLOUT].env}
    assert env == {"A": "1", "B": "2", "C": "2"}
    assert made.roles[Role.TRAINER].node_selector == {"zone": "b"}
