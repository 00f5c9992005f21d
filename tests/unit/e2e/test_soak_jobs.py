# SPDX-License-Identifier: Apache-2.0
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import R1RewardRuntimeSpec
from tests.e2e import digits_job
from tests.e2e.soak.jobs import RUNTIME, runtime, small_job


def test_two_small_jobs_share_no_rows_and_each_is_a_valid_job():
    first, second = (small_job(f"soak-{n}", seed=n) for n in (1, 2))
    specs = [R1RewardJobSpec.model_validate(j["spec"]) for j in (first, second)]
    assert [s.data.seed for s in specs] == [1, 2]
    assert {s.runtime_ref.name for s in specs} == {RUNTIME}


def test_a_change_is_merged_and_none_removes_a_stage():
    spec = small_job("soak-1", 1, rl=None, sft={"maxSteps": 7})["spec"]
    assert "rl" not in spec
    assert (spec["sft"]["maxSteps"], spec["sft"]["batchSize"]) == (7, 16)


def test_the_small_runtime_changes_requests_alone():
    small = R1RewardRuntimeSpec.model_validate(runtime()["spec"])
    base = R1RewardRuntimeSpec.model_validate(digits_job.load("digits/runtime.yaml")["spec"])
    assert {str(r.resources.requests["cpu"]) for r in small.roles.values()} == {"50m"}
    for role, template in base.roles.items():
        assert small.roles[role].resources.limits == template.resources.limits
    assert small.images == base.images


def test_the_teachers_key_is_its_stores_own():
    keys = [digits_job.teacher_key({"AWS_SECRET_ACCESS_KEY": s}) for s in ("a", "a", "b")]
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) == 40


def test_the_example_names_its_teachers_key_by_a_secret():
    spec = digits_job.digits_job()["spec"]
    secret = digits_job.teacher_secret({"AWS_SECRET_ACCESS_KEY": "a"})
    (key,) = secret["stringData"]
    named = {"name": secret["metadata"]["name"], "key": key}
    assert spec["annotate"]["teacher"]["apiKeySecretRef"] == named
    assert spec["rl"]["verifier"]["judge"]["apiKeySecretRef"] == named
