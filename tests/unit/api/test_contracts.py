# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from r1reward_api import crd, names
from r1reward_api.canonical import canonical_json
from r1reward_api.constants import TERMINATION_MESSAGE_LIMIT, Role, Stage
from r1reward_api.keys import planned_key, semantic, stage_key
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import ModelServing
from r1reward_api.stages import (
    Source,
    baseline_output,
    key_inputs,
    set_output,
    sources_of,
    stages_of,
)
from r1reward_api.wire.manifest import FileEntry, tree_digest
from r1reward_api.wire.termination import BriefOutput, CachedStage, Termination

ROOT = Path(__file__).parents[3]
SPEC = {
    "runtimeRef": {"name": "gpu"},
    "model": {"uri": "hf://org/model"},
    "storage": {"uri": "s3://bucket/root", "secretRef": {"name": "s3"}},
    "data": {"preferences": [{"uri": "s3://bucket/rows/*.parquet"}]},
    "annotate": {"teacher": {"baseUrl": "http://teacher/v1", "model": "m"}},
    "sft": {},
    "rl": {},
}
SERVING = ModelServing()
DIGEST = "sha256:" + "0" * 64
KNOWN = {
    Stage.PREPARE: {"model": "m", "train": "t", "heldout": "h"},
    Stage.ANNOTATE: {"sft": "c", "rl": "r"},
    Stage.SFT: {"weights": "w", "metrics": "x"},
    Stage.RL: {"weights": "v", "metrics": "y"},
}
CODE = {stage.value: "code" for stage in Stage}


def spec(**changes: object) -> R1RewardJobSpec:
    return R1RewardJobSpec.model_validate({**SPEC, **changes})


def key(changed: R1RewardJobSpec, stage: Stage, **arguments: object) -> str | None:
    values = {"serving": SERVING, "known": KNOWN, "code": CODE, "rollout_image": "i", **arguments}
    return planned_key(changed, stage=stage, **values)  # pyright: ignore[reportArgumentType]


def test_the_committed_crds_are_those_of_the_models():
    for name, text in crd.rendered().items():
        assert (ROOT / "manifests/crd" / name).read_text() == text, "run `make manifests`"


def test_every_field_of_the_crds_has_a_description():
    missing: list[str] = []

    def walk(schema: dict, path: str) -> None:
        for field, child in schema.get("properties", {}).items():
            if "description" not in child and path != "":
                missing.append(f"{path}.{field}")
            walk(child, f"{path}.{field}")
        for part in ("items", "additionalProperties"):
            if isinstance(schema.get(part), dict):
                walk(schema[part], f"{path}[]")

    for text in crd.rendered().values():
        version = yaml.safe_load(text)["spec"]["versions"][0]
        properties = version["schema"]["openAPIV3Schema"]["properties"]
        walk(properties["spec"], "spec")
        walk(properties.get("status", {}), "status")
    assert missing == []


def test_the_printer_columns_are_those_that_people_watch():
    job = yaml.safe_load(crd.rendered()["r1reward.dev_r1rewardjobs.yaml"])
    columns = job["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")] == [
        "Stage", "Phase", "Progress", "ETA", "Accuracy", "Age",
    ]  # fmt: skip


def test_a_jobs_stages_are_those_it_has_sections_for():
    assert stages_of(spec()) == tuple(Stage)
    alone = spec(annotate=None, sft=None, rl=None)
    assert stages_of(alone) == (Stage.PREPARE, Stage.EVALUATE)
    assert sources_of(alone, Stage.EVALUATE).keys() == {"heldout", "base"}


def test_a_change_of_rl_changes_the_keys_of_rl_and_of_nothing_before():
    changed = spec(rl={"seed": 1})
    same = (Stage.ANNOTATE, Stage.SFT)
    assert [key(changed, s) for s in same] == [key(spec(), s) for s in same]
    assert key(changed, Stage.RL) != key(spec(), Stage.RL)


@pytest.mark.parametrize(
    "changes",
    [
        {"rl": {"rollout": {"replicas": 5}}},
        {"rl": {"workers": 4}},
        {"rl": {"checkpoint": {"everySteps": 1}}},
        {"policy": {"backoffLimit": 9}},
        {"storage": {"uri": "s3://other/root", "serviceAccountName": "trainer"}},
        {"overrides": {"roles": {"rollout": {"resources": {"requests": {"cpu": "9"}}}}}},
        {"queueName": "team-a"},
    ],
)
def test_how_a_job_is_run_changes_no_key(changes: dict):
    assert key(spec(**changes), Stage.RL) == key(spec(), Stage.RL)


def test_a_key_depends_on_code_inputs_and_for_rl_on_the_rollout_image():
    base = key(spec(), Stage.RL)
    assert key(spec(), Stage.RL, code={**CODE, "rl": "other"}) != base
    assert key(spec(), Stage.RL, rollout_image="other") != base
    other = {**KNOWN, Stage.SFT: {"weights": "other"}}
    assert key(spec(), Stage.RL, known=other) != base
    assert key(spec(), Stage.SFT, rollout_image="other") == key(spec(), Stage.SFT)


def test_what_is_read_for_the_report_alone_is_no_part_of_the_key():
    inputs = key_inputs(spec(), Stage.EVALUATE, KNOWN)
    assert inputs == {"heldout": "h", "base": "m", "sft": "w", "rl": "v"}


def test_there_is_no_key_before_every_input_is_there():
    assert key(spec(), Stage.RL, known={Stage.PREPARE: KNOWN[Stage.PREPARE]}) is None


def test_a_value_that_went_through_the_api_server_has_the_same_key():
    wire = json.loads(json.dumps(spec(rl={"learningRate": 1.0}).to_wire()).replace("1.0", "1"))
    assert key(R1RewardJobSpec.model_validate(wire), Stage.RL) == key(
        spec(rl={"learningRate": 1.0}), Stage.RL
    )


def test_a_key_is_a_sha256():
    found = stage_key(spec(), SERVING, Stage.PREPARE, {"data": "d"}, "code", "")
    assert len(found) == 64
    assert int(found, 16) > 0


def test_operational_fields_are_left_out_at_any_depth():
    rl = spec().rl
    assert rl is not None
    assert "replicas" not in json.dumps(semantic(rl))


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False)))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict):
    finite = {k: v for k, v in value.items() if v not in (float("inf"), float("-inf"))}
    assert canonical_json(finite) == canonical_json(dict(reversed(finite.items())))


def test_a_folders_digest_does_not_depend_on_the_listing():
    files = [FileEntry(path=p, bytes=1, sha256=c * 64) for p, c in (("a", "0"), ("b", "1"))]
    assert tree_digest(files) == tree_digest(files[::-1])
    assert tree_digest(files) != tree_digest(files[:1])


@pytest.mark.parametrize("stage", list(Stage))
def test_every_childs_name_of_the_longest_job_fits_a_label(stage: Stage):
    job = "a" * 40
    servers = (Role.ROLLOUT, Role.VERIFIER, Role.JUDGE)
    made = [names.service(job, stage, 999, role) for role in servers]
    made += [names.frozen_revision(job, stage, 999), names.run_config_map(job, stage, 999)]
    made.append(names.network_policy(job, stage, 999))
    if stage in (Stage.SFT, Stage.RL):
        made.append(names.worker_pod(job, stage, 999, 1023))
    assert max(map(len, made)) <= 63


def test_a_termination_message_is_cut_in_its_words_and_never_in_its_structure():
    long = Termination(
        stage=Stage.RL, attempt=1, outcome="Failed", message="ä" * 1500,
        outputs={"weights": BriefOutput(digest=DIGEST)},
    )  # fmt: skip
    text = long.encode()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    again = Termination.decode(text)
    assert again is not None
    assert again.outputs == long.outputs
    assert again.message.startswith("ää")


def test_prepare_can_name_a_whole_chain_as_cached_within_the_limit():
    outputs = {
        Stage.PREPARE: ("model", "train", "heldout", "chains", "quality"),
        Stage.ANNOTATE: ("sft", "rl"),
        Stage.SFT: ("weights", "metrics"),
        Stage.RL: ("weights", "metrics"),
        Stage.EVALUATE: ("predictions", "report"),
    }
    run = f"runs/{'u' * 36}/attempt-10"

    def brief(stage: Stage) -> dict[str, BriefOutput]:
        return {n: BriefOutput(digest=DIGEST, bytes=10**11, rows=10**6) for n in outputs[stage]}

    cached = [
        CachedStage(stage=s, key="0" * 64, run=run, outputs=brief(s), summary={"accuracy": "0.9"})
        for s in list(Stage)[1:]
    ]
    message = Termination(
        stage=Stage.PREPARE, attempt=10, outcome="Succeeded", key="0" * 64, run=run,
        outputs=brief(Stage.PREPARE), code={s.value: "0" * 32 for s in Stage}, cached=cached,
    )  # fmt: skip
    assert Termination.decode(message.encode()) == message


@pytest.mark.parametrize(("sets", "baselines"), [(16, 0), (8, 8)])
def test_prepare_can_name_as_many_evaluation_sets_and_baselines_as_a_job_may_have(
    sets: int, baselines: int
):
    names = ["model", "train", "heldout", "chains", "quality"]
    names += [set_output(f"{'s' * 30}{n:02}") for n in range(sets)]
    names += [baseline_output(f"{'b' * 30}{n:02}") for n in range(baselines)]
    outputs = {n: BriefOutput(digest=DIGEST, bytes=10**11, rows=10**6) for n in names}
    message = Termination(
        stage=Stage.PREPARE, attempt=10, outcome="Succeeded", key="0" * 64,
        run=f"runs/{'u' * 36}/attempt-10", outputs=outputs,
        code={s.value: "0" * 32 for s in Stage},
        summary={"trainRows": "1" * 9, "heldoutRows": "1" * 9, "badRows": "1" * 9},
    )  # fmt: skip
    text = message.encode()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    again = Termination.decode(text)
    assert again is not None
    assert {n: o.digest for n, o in again.outputs.items()} == dict.fromkeys(names, DIGEST)


def with_sets(*sets: dict[str, str]) -> R1RewardJobSpec:
    return spec(evaluate={"sets": list(sets)})


SET = {"name": "vl", "uri": "s3://bucket/vl.parquet", "format": "VLRewardBench"}


def test_evaluate_reads_each_set_from_prepare_and_its_key_depends_on_it():
    job = with_sets(SET)
    assert sources_of(job, Stage.EVALUATE)["set-vl"] == Source(Stage.PREPARE, "set-vl")
    assert key(job, Stage.EVALUATE) is None
    known = {**KNOWN, Stage.PREPARE: {**KNOWN[Stage.PREPARE], "set-vl": "one"}}
    other = {**KNOWN, Stage.PREPARE: {**KNOWN[Stage.PREPARE], "set-vl": "two"}}
    found = key(job, Stage.EVALUATE, known=known)
    assert found != key(job, Stage.EVALUATE, known=other)
    moved = with_sets({**SET, "uri": "s3://bucket/copy/vl.parquet"})
    assert found == key(moved, Stage.EVALUATE, known=known), "its rows are the input, not its place"
    read_otherwise = with_sets({**SET, "format": "VLRewardBenchRelease"})
    assert found != key(read_otherwise, Stage.EVALUATE, known=known), "another rule of scoring"


def test_a_set_changes_prepares_key_and_none_between_prepare_and_evaluate():
    def prepared(job: R1RewardJobSpec) -> str:
        return stage_key(job, SERVING, Stage.PREPARE, {}, "code", "")

    assert prepared(with_sets(SET)) != prepared(spec())
    for stage in (Stage.ANNOTATE, Stage.SFT, Stage.RL):
        assert key(with_sets(SET), stage) == key(spec(), stage)


def test_what_the_runtime_serves_at_most_changes_prepares_key():
    """prepare puts longer rows aside by it, so another runtime's rows are not this one's."""

    def prepared(**serving: Any) -> str:
        return stage_key(spec(), ModelServing(**serving), Stage.PREPARE, {}, "code", "")

    assert prepared(max_model_length=8192) != prepared(max_model_length=4096)
    assert prepared(images_per_prompt=2) != prepared(images_per_prompt=1)
    assert prepared(tensor_parallel_size=2) == prepared(tensor_parallel_size=1)


def test_vllms_arguments_change_the_keys_of_what_it_answers():
    """They may be --quantization."""

    def keys(extra_args: list[str]) -> dict[Stage, str]:
        serving = ModelServing(extra_args=extra_args)
        return {stage: stage_key(spec(), serving, stage, {}, "code", "") for stage in Stage}

    plain, other = keys([]), keys(["--quantization", "fp8"])
    assert {stage for stage in Stage if plain[stage] != other[stage]} == {Stage.RL, Stage.EVALUATE}


@pytest.mark.parametrize("text", [None, "", "Killed", "{}", '{"version": 2}', "[1]"])
def test_what_is_no_termination_message_is_told_apart(text: str | None):
    assert Termination.decode(text) is None


def test_an_unknown_field_is_an_error_that_names_it():
    with pytest.raises(ValidationError, match="learningrate"):
        spec(rl={"learningrate": 1})
