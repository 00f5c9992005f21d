# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace
from typing import Any

import pytest

from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_trainer.evaluation.report.lineage import settings


def lines(contamination: str, **ran: str) -> dict[str, str]:
    data = {"preferences": [{"uri": "s3://rows/x.parquet"}], "contamination": contamination}
    spec = R1RewardJobSpec.model_validate(
        {
            "runtimeRef": {"name": "gpu"},
            "model": {"uri": "hf://a/b"},
            "storage": {"uri": "s3://bucket/root"},
            "data": data,
            "sft": {"chains": "s3://rows/chains.jsonl"},
        }
    )
    config: Any = SimpleNamespace(
        spec=spec, serving=SimpleNamespace(dtype="bfloat16"), rollout_image="rollout"
    )
    return {line.name: line.value for line in settings(config, ran)}


@pytest.mark.parametrize(
    ("contamination", "then"),
    [("Remove", "were left out"), ("Report", "were trained on all the same")],
)
def test_a_report_says_which_rows_and_chains_share_something_with_what_judges(
    contamination: str, then: str
) -> None:
    found = lines(contamination, contaminatedRows="3", contaminatedChains="2")
    assert found["Contamination"].startswith("3 training rows look like rows that are judged")
    assert found["Contamination of SFT"].startswith("2 chains of sft.chains look like rows that")
    assert found["Contamination"].endswith(then)
    assert found["Contamination of SFT"].endswith(then)


def test_a_report_says_nothing_of_contamination_where_there_is_none() -> None:
    for ran in ({}, {"contaminatedRows": "0", "contaminatedChains": "0"}):
        assert not [name for name in lines("Report", **ran) if "Contamination" in name]
