# SPDX-License-Identifier: Apache-2.0
import asyncio
import base64
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import Teacher
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError
from r1reward_trainer.teacher import (
    LONGEST_PAUSE_SECONDS,
    MAX_ANSWER_BYTES,
    REFUSALS_BEFORE_GIVING_UP,
    Question,
    Refused,
    TeacherClient,
    chat_request,
)
from r1reward_trainer.teacher import Reply as Said
from tests.unit.teacher.faulty_teacher import FaultyTeacher, Reply, Rule, serve

PNG = b"\x89PNG-pixels"
QUESTION = Question("Which is better?", (PNG, b"\xff\xd8jpeg"), 0.5, 7)
CHAIN = "<think>a</think><answer>1</answer>"
GOOD = Reply(CHAIN)


def completion(content: bytes) -> Reply:
    """A chat completion whose content is JSON as it stands."""
    return Reply(body=b'{"choices": [{"message": {"content": %s}}]}' % content)


def ask(
    rule: Rule,
    times: int = 1,
    concurrency: int = 4,
    patience: float = 20.0,
    key: str = "s3cret",
    **teacher: Any,
) -> tuple[list[Any], FaultyTeacher]:
    """Answers (or errors) to so many questions asked at once, and the teacher."""
    with serve(rule) as service:
        settings = {"timeoutSeconds": 5, "maxTokens": 99} | teacher
        spec = Teacher.model_validate({"baseUrl": service.url, "model": "gpt", **settings})

        async def all_at_once() -> list[Any]:
            async with TeacherClient(spec, key, concurrency, patience) as client:
                questions = (client.ask(QUESTION) for _ in range(times))
                return await asyncio.gather(*questions, return_exceptions=True)

        return asyncio.run(all_at_once()), service


def test_it_sends_the_images_before_the_text_as_openai_defines_it() -> None:
    (answer,), service = ask(lambda n, body: GOOD)
    assert answer == Said(CHAIN)
    urls = [
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8jpeg").decode(),
    ]
    assert service.requests == [
        {
            "model": "gpt",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image_url", "image_url": {"url": url}} for url in urls),
                        {"type": "text", "text": "Which is better?"},
                    ],
                }
            ],
            "max_tokens": 99,
            "temperature": 0.5,
            "seed": 7,
        }
    ]
    assert service.keys == ["Bearer s3cret"]


@pytest.mark.parametrize(
    "fault",
    [
        Reply(status=500),
        Reply(status=429),
        Reply(hang_up=True),
        Reply(body=b"<html>bad gateway</html>"),
        Reply(body=b""),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": 3}'),
        Reply(body=b'["choices"]'),
        Reply(body=b"[" * 200_000),
        Reply(body=b'{"choices": "\xff"}'),
        Reply(body=b" " * (MAX_ANSWER_BYTES + 1)),
        Reply(body=b"rubbish", headers={"Content-Encoding": "gzip"}),
        Reply(delay=30),
        Reply(trickle=0.1),
    ],
    ids=[
        "500",
        "429",
        "hang-up",
        "html",
        "empty",
        "no-choice",
        "wrong-type",
        "wrong-shape",
        "deep",
        "broken-utf-8",
        "huge",
        "broken-gzip",
        "no-answer-in-time",
        "endless-trickle",
    ],
)
def test_a_fault_that_may_pass_is_tried_again(fault: Reply) -> None:
    (answer,), service = ask(lambda n, body: fault if n == 1 else GOOD, timeoutSeconds=1)
    assert (answer, len(service.requests)) == (Said(CHAIN, faults=1), 2)


def test_it_waits_as_long_as_the_teacher_asks() -> None:
    begin = time.monotonic()
    slow_down = Reply(status=429, headers={"Retry-After": "2"})
    (answer,), _ = ask(lambda n, body: slow_down if n == 1 else GOOD)
    assert answer == Said(CHAIN, faults=1)
    assert 2.0 <= time.monotonic() - begin < 5.0


def test_it_waits_until_the_date_that_the_teacher_names() -> None:
    times: list[float] = []

    def busy_once(number: int, body: dict[str, Any]) -> Reply:
        times.append(time.time())
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
        return Reply(status=429, headers={"Retry-After": later}) if number == 1 else GOOD

    (answer,), _ = ask(busy_once)
    assert answer == Said(CHAIN, faults=1)
    assert times[1] - times[0] >= 2.0  # the date has whole seconds


@pytest.mark.parametrize("header", ["1e9", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_pause_that_a_teacher_asks_for_outlasts_the_patience(header: str) -> None:
    begin = time.monotonic()
    (error,), service = ask(
        lambda n, body: Reply(status=429, headers={"Retry-After": header}),
        patience=LONGEST_PAUSE_SECONDS - 1,
    )
    assert isinstance(error, InfrastructureError)
    assert "HTTP 429" in error.message
    assert time.monotonic() - begin < 5.0
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_final_at_once(status: int) -> None:
    (error,), service = ask(lambda n, body: Reply(status=status))
    assert isinstance(error, ConfigurationError)
    assert error.reason is Reason.TEACHER_DENIED
    assert "annotate.teacher.apiKeySecretRef" in error.message
    assert "s3cret" not in error.message
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 200, 502])
def test_a_key_that_the_teacher_says_again_is_hidden(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    echo = Reply(status=status, body=b'{"error": "no such key: s3cret"}')
    (error,), _ = ask(lambda n, body: echo, patience=1.0)
    assert isinstance(error, Exception)
    assert "s3cret" not in f"{error}{error.__dict__}{caplog.text}"


@pytest.mark.parametrize("key", [" s3cret", "s3cret\n", "s3cret\r\n"])
def test_white_space_around_the_key_is_left_out(key: str) -> None:
    (answer,), service = ask(lambda n, body: GOOD, key=key)
    assert answer == Said(CHAIN)
    assert service.keys == ["Bearer s3cret"]


@pytest.mark.parametrize("key", ["s3\ncret", "s3cret\x00", "s3crét"])
def test_a_key_that_no_header_can_carry_is_told_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        ask(lambda n, body: GOOD, key=key)
    assert "annotate.teacher.apiKeySecretRef" in error.value.message
    assert "s3" not in error.value.message


@pytest.mark.parametrize("url", ["http://[::1::2]/v1", "http://xn--a/v1"])
def test_a_url_that_could_never_be_asked_is_final_before_anything_is(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"annotate\.teacher\.baseUrl") as error:
        ask(lambda n, body: GOOD, baseUrl=url)
    assert url in error.value.message


def test_an_unknown_model_is_final_at_once() -> None:
    (error,), _ = ask(lambda n, body: Reply(status=404, body=b"model gpt not found"))
    assert isinstance(error, ConfigurationError)
    assert "model gpt not found" in error.message


def test_what_the_teacher_says_steers_no_terminal() -> None:
    said = Reply(status=404, body="\x1b[2J\x07\u202eno model".encode())
    (error,), _ = ask(lambda n, body: said)
    assert isinstance(error, ConfigurationError)
    assert error.message.isprintable()
    assert "no model" in error.message


def test_an_answer_that_repeats_the_key_is_kept_without_it() -> None:
    key = "sk-0123456789abcdef"
    echo = Reply(f"<think>Bearer {key}</think><answer>1</answer>")
    (answer,), _ = ask(lambda n, body: echo, key=key)
    assert answer == Said("<think>Bearer ***</think><answer>1</answer>")


@pytest.mark.parametrize("key", ["none", "1", "x"])
def test_a_key_that_is_a_word_of_the_answer_changes_none(key: str) -> None:
    chain = "<think>none of the boxes exists</think><answer>1</answer>"
    (answer,), _ = ask(lambda n, body: Reply(chain), key=key)
    assert answer == Said(chain)


def test_questions_that_are_refused_after_others_were_answered_elsewhere_end_nothing() -> None:
    """What is left for an attempt, or for one of several processes, may be refused as a whole."""
    with serve(lambda n, body: Reply(status=400, body=b"content filter")) as service:
        spec = Teacher.model_validate({"baseUrl": service.url, "model": "gpt"})

        async def all_at_once() -> list[Any]:
            async with TeacherClient(spec, None, 4, answered=lambda: True) as client:
                questions = (client.ask(QUESTION) for _ in range(REFUSALS_BEFORE_GIVING_UP + 4))
                return await asyncio.gather(*questions, return_exceptions=True)

        assert all(isinstance(answer, Refused) for answer in asyncio.run(all_at_once()))


def test_a_question_that_is_refused_is_not_asked_again_and_others_go_on() -> None:
    answers, service = ask(
        lambda n, body: Reply(status=400, body=b"content filter") if n == 2 else GOOD, times=4
    )
    refusals = [a for a in answers if isinstance(a, Refused)]
    assert [str(r) for r in refusals] == ["HTTP 400: content filter"]
    assert answers.count(Said(CHAIN)) == 3
    assert len(service.requests) == 4


def test_when_everything_is_refused_the_user_is_told_what_the_teacher_says() -> None:
    answers, _ = ask(lambda n, body: Reply(status=400, body=b"max_tokens unsupported"), times=20)
    errors = [a for a in answers if isinstance(a, ConfigurationError)]
    assert errors
    assert "max_tokens unsupported" in errors[0].message


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (Reply(status=503), "HTTP 503"),
        (Reply(hang_up=True), "RemoteProtocolError"),
        (Reply(trickle=0.1), "no answer within 1 s"),
        (Reply(body=b"<html>Sign in</html>"), "no chat completion: '<html>Sign in</html>'"),
        (Reply(body=b" " * (MAX_ANSWER_BYTES + 1)), f"more than {MAX_ANSWER_BYTES} bytes"),
    ],
    ids=["503", "hang-up", "endless-trickle", "html", "huge"],
)
def test_a_teacher_that_stays_away_is_given_up_after_the_patience_with_its_last_fault(
    fault: Reply, word: str
) -> None:
    begin = time.monotonic()
    (error,), service = ask(lambda n, body: fault, patience=2.0, timeoutSeconds=1)
    assert isinstance(error, InfrastructureError)
    assert error.reason is Reason.TEACHER_UNAVAILABLE
    assert word in error.message
    assert time.monotonic() - begin < 5.0
    assert len(service.requests) > 1


def test_a_teacher_that_is_not_there_is_given_up_after_the_patience() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    spec = Teacher(base_url=f"http://127.0.0.1:{port}/v1", model="gpt", timeout_seconds=5)

    async def work() -> None:
        async with TeacherClient(spec, None, 1, patience=2.0) as client:
            await client.ask(QUESTION)

    with pytest.raises(InfrastructureError, match="ConnectError") as error:
        asyncio.run(work())
    assert error.value.reason is Reason.TEACHER_UNAVAILABLE
    assert f"127.0.0.1:{port}" in error.value.message


def test_a_third_of_the_answers_may_fail_and_all_questions_are_answered() -> None:
    answers, service = ask(
        lambda n, body: Reply(status=500) if n % 3 == 0 else GOOD, times=40, concurrency=16
    )
    assert [answer.text for answer in answers] == [CHAIN] * 40
    assert sum(answer.faults for answer in answers) == len(service.requests) - 40


def test_each_kind_of_fault_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    ask(lambda n, body: Reply(status=500) if n <= 8 else GOOD, times=8, concurrency=8)
    assert [record.message for record in caplog.records if "teacher" in record.message] == [
        "teacher: HTTP 500; tried again, and said only once"
    ]


def test_one_question_that_always_fails_does_not_end_the_work() -> None:
    def rule(number: int, body: dict[str, Any]) -> Reply:
        return Reply(status=500) if body["seed"] == 13 else GOOD

    with serve(rule) as service:
        spec = Teacher(base_url=service.url, model="gpt", timeout_seconds=5)

        async def work() -> tuple[Any, int]:
            async with TeacherClient(spec, None, 2, patience=2.0) as client:
                poison = asyncio.create_task(client.ask(Question("q", (PNG,), 0.0, 13)))
                answered = 0
                while not poison.done():
                    assert await client.ask(QUESTION) == Said(CHAIN)
                    answered += 1
                    await asyncio.wait([poison], timeout=0.1)
                return poison.exception(), answered

        error, answered = asyncio.run(work())
    assert isinstance(error, Refused)
    assert answered > 1


def test_a_question_that_always_fails_is_given_up_with_no_other_beside_it() -> None:
    def rule(number: int, body: dict[str, Any]) -> Reply:
        return Reply(status=500) if body["messages"] == poison["messages"] else GOOD

    poison = chat_request(
        Teacher.model_validate({"baseUrl": "http://teacher/v1", "model": "gpt"}), QUESTION
    )
    (answer,), service = ask(rule, patience=0.5)
    assert isinstance(answer, Refused)
    plain = service.requests[-1]["messages"][0]["content"]
    assert [part["type"] for part in plain] == ["image_url", "text"]


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    answers, service = ask(lambda n, body: Reply(GOOD.text, delay=0.05), times=24, concurrency=3)
    assert answers == [Said(CHAIN)] * 24
    assert service.most_in_flight == 3


def test_a_teacher_that_declines_without_text_has_answered_nothing() -> None:
    declined = Reply(body=b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}')
    (answer,), _ = ask(lambda n, body: declined)
    assert answer == Said("")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'"\\ud800 <think>a</think>\\udfff"', "? <think>a</think>?"),
        (b'"<|im_end|>\\u202e\\u0000"', "<|im_end|>\u202e\0"),
        (b'["<answer>1</answer>"]', ""),
        (b'{"text": "x"}', ""),
        (b"1", ""),
    ],
    ids=["half-a-pair", "control", "list", "object", "number"],
)
def test_hostile_text_comes_as_text_that_can_be_stored(content: bytes, text: str) -> None:
    (answer,), _ = ask(lambda n, body: completion(content))
    assert answer == Said(text)
    answer.text.encode()
