# SPDX-License-Identifier: Apache-2.0
"""The published document describes the service, and the service does what it says."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from r1reward_trainer.verifier.openapi import document
from tests.unit.verifier.conftest import TOKEN

PUBLISHED = Path("docs/verifier-openapi.json")
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.ignored_auth,
)
SCHEMA = schemathesis.openapi.from_dict(json.loads(PUBLISHED.read_text()))
OPERATIONS: dict[str, Any] = {
    each.ok().label: each.ok()  # pyright: ignore[reportAttributeAccessIssue]
    for each in SCHEMA.get_all_operations()
}
EXAMPLES = 40


def test_the_published_document_is_current() -> None:
    assert PUBLISHED.read_text() == document(), "run `make manifests`"


def test_the_service_gives_its_document_for_the_token(verifier) -> None:
    url = verifier()
    assert httpx.get(f"{url}/openapi.json").status_code == 401
    given = httpx.get(f"{url}/openapi.json", headers=HEADERS).json()
    published = json.loads(PUBLISHED.read_text())
    del published["paths"]["/r1/logs"]  # this one keeps no log
    assert given["paths"] == published["paths"]


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        pytest.param(operation, mode, id=f"{label} {mode.name.lower()}")
        for label, operation in OPERATIONS.items()
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or operation.method == "post"  # a GET has nothing wrong
    ],
)
def test_the_service_answers_as_its_document_says(
    verifier, judge_stub, tmp_path, operation, mode
) -> None:
    url = verifier(judge_stub, tail=tmp_path / "tail", max_body_bytes=64 << 20)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def conforms(case: schemathesis.Case) -> None:
        response = case.call(base_url=url, headers=HEADERS, timeout=30)
        case.validate_response(response, checks=list(CHECKS))
        statuses[response.status_code] += 1

    statuses: Counter[int] = Counter()
    conforms()
    if mode is GenerationMode.NEGATIVE:
        assert statuses[422] > EXAMPLES // 4, statuses


@pytest.mark.parametrize("name", ["RewardsRequest", "OpenRlhfRequest", "VerlRequest", "TrlRequest"])
def test_the_example_of_each_request_is_rewarded_as_its_document_says(verifier, name) -> None:
    schema = json.loads(PUBLISHED.read_text())["components"]["schemas"][name]
    (operation,) = (
        each
        for each in OPERATIONS.values()
        if name in str(each.definition.raw.get("requestBody", ""))
    )
    (example,) = schema["examples"]
    case = operation.Case(body=example, media_type="application/json")
    answer = case.call_and_validate(base_url=verifier(), headers=HEADERS, checks=list(CHECKS))
    assert answer.status_code == 200
    assert "1.5" in answer.text
