# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from r1reward_api.resource.job import Teacher
from r1reward_trainer.data.base_model import check_model
from r1reward_trainer.method.judge_prompt import judge_prompt, parse_judgement, think_tail
from r1reward_trainer.method.reward import JudgeOutcome
from r1reward_trainer.method.verdict import format_ok, parse_verdict
from r1reward_trainer.render import chain, prompt_text
from r1reward_trainer.teacher import Question, chat_request
from tests.digits.model import build_model
from tests.digits.rows import (
    ROWS_PER_IMAGE,
    TEMPLATE,
    WORDS,
    decode,
    digits,
    preference_rows,
    think,
)
from tests.digits.service import MODEL, build_app
from tests.digits.teacher import Choice, DigitsTeacher, seen


def test_every_image_has_its_rows_and_either_answer_is_right_equally_often() -> None:
    rows = preference_rows()
    assert len(rows) == ROWS_PER_IMAGE * len(digits()) == 7188
    assert len({r.id for r in rows}) == len(rows)
    assert Counter(r.gold for r in rows) == {1: 3594, 2: 3594}
    labels = [WORDS[label] for label in digits().labels for _ in range(ROWS_PER_IMAGE)]
    assert [(r.answer1, r.answer2)[r.gold - 1] for r in rows] == labels
    assert all(r.answer1 != r.answer2 for r in rows)
    assert preference_rows(seed=1) != rows


def test_an_image_holds_the_digit_that_it_was_made_of() -> None:
    row = preference_rows()[400]
    assert decode(row.images[0]) == pytest.approx(digits().pixels[100], abs=0.1)


def test_the_model_is_one_that_prepare_accepts(tmp_path: Path) -> None:
    check_model(build_model(tmp_path / "model"), "s3://digits/model", max_model_length=128)


@pytest.fixture(scope="module")
def service() -> TestClient:
    return TestClient(build_app())


def answer(service: TestClient, question: Question) -> str:
    body = chat_request(Teacher(base_url="http://t/v1", model=MODEL), question)
    response = service.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    return response.json()["choices"][0]["message"]["content"]


def test_the_teacher_is_often_right_and_sometimes_only_later(service: TestClient) -> None:
    attempts: Counter[int] = Counter()
    for number, row in enumerate(preference_rows()[:2000:10]):
        text = prompt_text(TEMPLATE, row.question, row.answer1, row.answer2)
        right = 0
        for attempt in (3, 2, 1):
            response = answer(service, Question(text, row.images, 1.0, 10 * number + attempt))
            assert format_ok(response)
            if parse_verdict(response) == row.gold:
                right = attempt
        attempts[right] += 1
    assert 0.70 < attempts[1] / 200 < 0.90
    assert attempts[2] > 5


def test_the_teacher_is_as_often_right_as_it_is_sure() -> None:
    teacher, learned = DigitsTeacher(), set(seen())
    rows = [r for i, r in enumerate(preference_rows()) if i // ROWS_PER_IMAGE not in learned]
    belief = np.array([teacher.belief(r.images[0], Choice(r.answer1, r.answer2)) for r in rows])
    right = np.where(belief >= 0.5, 1, 2) == np.array([r.gold for r in rows])
    sure = np.maximum(belief, 1 - belief)
    bins = np.minimum((sure * 10).astype(int), 9)
    parts = [bins == b for b in np.unique(bins)]
    error = sum(part.mean() * abs(right[part].mean() - sure[part].mean()) for part in parts)
    assert error < 0.03
    assert 0.8 < right.mean() < 0.9


@pytest.mark.parametrize("template", [TEMPLATE, None], ids=["demo", "paper"])
def test_the_teacher_understands_the_papers_prompt_too(
    service: TestClient, template: str | None
) -> None:
    for row in preference_rows()[:20]:
        text = prompt_text(template, row.question, row.answer1, row.answer2)
        response = answer(service, Question(text, row.images, 0.0, 1))
        said = parse_verdict(response)
        assert said in (1, 2)
        assert (row.answer1, row.answer2)[said - 1] in response


def test_the_same_seed_gives_the_same_answer(service: TestClient) -> None:
    row = preference_rows()[0]
    text = prompt_text(TEMPLATE, row.question, row.answer1, row.answer2)
    answers = {answer(service, Question(text, row.images, 1.0, 5)) for _ in range(3)}
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (chain(1, think("three", 1)), JudgeOutcome.MATCH),
        (chain(2, think("three", 1)), JudgeOutcome.MISMATCH),
        (chain(1, "three"), JudgeOutcome.MISMATCH),
        (chain(1, "three, so 1 or three, so 2"), JudgeOutcome.MISMATCH),
        (chain(1, "Output 1."), JudgeOutcome.MISMATCH),
    ],
)
def test_the_judge_compares_chain_and_verdict(
    service: TestClient, response: str, outcome: JudgeOutcome
) -> None:
    verdict = parse_verdict(response)
    assert verdict is not None
    prompt = judge_prompt(think_tail(response), verdict)
    assert parse_judgement(answer(service, Question(prompt, (), 0.1, 0))) is outcome


def test_it_lists_its_model_and_refuses_others(service: TestClient) -> None:
    assert [m["id"] for m in service.get("/v1/models").json()["data"]] == [MODEL]
    body = {"model": "gpt", "messages": [{"role": "user", "content": "hello"}]}
    assert service.post("/v1/chat/completions", json=body).status_code == 404
    body["model"] = MODEL
    assert service.post("/v1/chat/completions", json=body).status_code == 400


def test_with_a_key_it_refuses_whoever_brings_none() -> None:
    guarded = TestClient(build_app("the-key"))
    row = preference_rows()[0]
    text = prompt_text(TEMPLATE, row.question, row.answer1, row.answer2)
    body = chat_request(
        Teacher(base_url="http://t/v1", model=MODEL), Question(text, row.images, 1.0, 5)
    )
    codes = [
        guarded.post("/v1/chat/completions", json=body, headers=headers).status_code
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Bearer the-key"})
    ]
    assert codes == [401, 401, 200]


def test_it_is_out_of_order_for_as_long_as_it_is_told() -> None:
    service = TestClient(build_app())
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    service.post("/outage?seconds=60")
    assert service.post("/v1/chat/completions", json=body).status_code == 500
    service.post("/outage?seconds=0")
    assert service.post("/v1/chat/completions", json=body).status_code == 400
