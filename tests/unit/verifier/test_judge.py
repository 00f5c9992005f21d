# SPDX-License-Identifier: Apache-2.0
"""A judge that fails in any way costs bounded time and grants nothing."""

import asyncio
import time

import pytest

from r1reward_trainer.method.judge_prompt import judge_prompt, parse_judgement
from r1reward_trainer.verifier.circuit import Circuit
from r1reward_trainer.verifier.judge import Judge, JudgeOptions
from tests.unit.verifier.judge_stub import Reply

QUESTION = judge_prompt("so Response 2 is better", 2)


def ask(stub_url, questions, circuit=None, **options):
    """Outcomes of questions asked at the same time."""

    async def run():
        given = {"model": "m", "timeout_seconds": 5, "backoff_seconds": 0.01, **options}
        judge = Judge(JudgeOptions(url=stub_url, **given), circuit=circuit)
        try:
            return [
                outcome.value
                for outcome in await asyncio.gather(
                    *(judge.ask(question, parse_judgement) for question in questions)
                )
            ]
        finally:
            await judge.close()

    return asyncio.run(run())


def ask_in_turn(stub_url, questions, circuit=None, **options):
    """Outcomes of questions asked one after another by one judge."""

    async def run():
        given = {"model": "m", "timeout_seconds": 5, "backoff_seconds": 0.01, **options}
        judge = Judge(JudgeOptions(url=stub_url, **given), circuit=circuit)
        try:
            return [(await judge.ask(question, parse_judgement)).value for question in questions]
        finally:
            await judge.close()

    return asyncio.run(run())


def different(n):
    return [judge_prompt(f"reason {i}: Response 2", 2) for i in range(n)]


def test_the_judge_is_asked_in_the_openai_protocol(judge_stub):
    assert ask(judge_stub.url, [QUESTION], model=None, api_key="key") == ["match"]
    assert judge_stub.keys == ["Bearer key"]
    assert judge_stub.calls == [
        {
            "model": "the-judge",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 16,
            "temperature": 0.1,
        }
    ]


def test_a_passing_failure_is_asked_again(judge_stub):
    replies = {1: Reply(status=500), 2: Reply(raw=b"<html>rubbish</html>")}
    judge_stub.behaviour = lambda _, nth: replies.get(nth, Reply("0"))
    assert ask(judge_stub.url, [QUESTION]) == ["mismatch"]
    assert len(judge_stub.calls) == 3


def test_a_busy_judge_is_left_alone_for_as_long_as_it_asks(judge_stub):
    times = []

    def busy_once(_, nth):
        times.append(time.monotonic())
        return Reply(status=429, headers={"Retry-After": "0.4"}) if nth == 1 else Reply()

    judge_stub.behaviour = busy_once
    assert ask(judge_stub.url, [QUESTION]) == ["match"]
    assert times[1] - times[0] >= 0.4


def test_a_judge_that_asks_for_more_time_than_there_is_is_not_waited_for(judge_stub):
    judge_stub.behaviour = lambda *_: Reply(status=429, headers={"Retry-After": "3600"})
    start = time.monotonic()
    assert ask(judge_stub.url, [QUESTION]) == ["unavailable"]
    assert time.monotonic() - start < 2
    assert len(judge_stub.calls) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(status=400),
        Reply(raw=b"not json"),
        Reply(raw=b"[" * 100_000),
        Reply(raw=b'{"choices": []}'),
        Reply(raw=b'{"choices": 3}'),
        Reply(raw=b'"1"'),
        Reply(raw=b"1" * (2 << 20)),
    ],
    ids=["500", "400", "text", "deep", "empty", "wrong", "bare", "huge"],
)
def test_a_judge_that_keeps_failing_is_unavailable(judge_stub, reply):
    judge_stub.behaviour = lambda *_: reply
    assert ask(judge_stub.url, [QUESTION]) == ["unavailable"]
    assert len(judge_stub.calls) <= 3


@pytest.mark.parametrize("text", ["I cannot say", "1 or 0", "", "yes", "Response 2 is better: 1"])
def test_an_answer_that_is_no_bare_digit_is_asked_three_times_and_then_unknown(judge_stub, text):
    judge_stub.behaviour = lambda *_: Reply(text)
    assert ask(judge_stub.url, [QUESTION]) == ["unknown"]
    assert len(judge_stub.calls) == 3


def test_a_judge_that_refuses_the_key_is_not_asked_for_every_sample(judge_stub, caplog):
    judge_stub.behaviour = lambda *_: Reply(status=401)
    outcomes = ask_in_turn(judge_stub.url, different(20), api_key="s3cret")
    assert outcomes == ["unavailable"] * 20
    assert len(judge_stub.calls) == 1
    assert "apiKeySecretRef" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_judge_that_hangs_costs_one_deadline_whatever_the_number_of_samples(judge_stub):
    judge_stub.behaviour = lambda *_: Reply(hang=True)
    start = time.monotonic()
    outcomes = ask(judge_stub.url, different(200), max_concurrency=8, timeout_seconds=0.5)
    assert outcomes == ["unavailable"] * 200
    assert time.monotonic() - start < 3 * 0.5
    assert len(judge_stub.calls) <= 16


def test_a_judge_that_is_not_there_costs_little(judge_stub):
    judge_stub.close()
    start = time.monotonic()
    outcomes = ask(judge_stub.url, different(200), max_concurrency=8)
    assert outcomes == ["unavailable"] * 200
    assert time.monotonic() - start < 3


def test_calls_in_flight_are_bounded(judge_stub):
    assert ask(judge_stub.url, different(60), max_concurrency=4) == ["match"] * 60
    assert judge_stub.most_in_flight <= 4


def test_an_equal_question_is_asked_once(judge_stub):
    assert ask_in_turn(judge_stub.url, [QUESTION] * 5) == ["match"] * 5
    assert len(judge_stub.calls) == 1


def test_the_oldest_judgement_is_forgotten_first(judge_stub):
    first, second, third = different(3)
    ask_in_turn(judge_stub.url, [first, second, first, third, first, second], cache_size=2)
    assert judge_stub.questions == [first, second, third, second]


def test_an_outage_is_not_remembered_as_a_judgement(judge_stub):
    judge_stub.behaviour = lambda _, nth: Reply(status=400) if nth == 1 else Reply("1")
    assert ask_in_turn(judge_stub.url, [QUESTION] * 2) == ["unavailable", "match"]


def test_after_an_outage_one_call_probes_and_its_success_ends_the_outage(judge_stub):
    now = 100.0
    circuit = Circuit(threshold=2, cooldown=10, clock=lambda: now)
    judge_stub.behaviour = lambda *_: Reply(status=400)
    assert ask_in_turn(judge_stub.url, different(6), circuit) == ["unavailable"] * 6
    assert len(judge_stub.calls) == 2

    now += 10
    judge_stub.behaviour = lambda *_: Reply()
    assert ask_in_turn(judge_stub.url, different(6), circuit) == ["match"] * 6


def test_an_open_circuit_lets_one_call_through_in_each_cooldown():
    now = 0.0
    circuit = Circuit(threshold=1, cooldown=10, clock=lambda: now)
    assert circuit.allow()
    circuit.failure()
    assert (circuit.is_open, circuit.allow()) == (True, False)
    now = 10.0
    assert [circuit.allow(), circuit.allow()] == [True, False]
    now = 20.0  # the probe never reported back
    assert circuit.allow()
    circuit.success()
    assert not circuit.is_open
