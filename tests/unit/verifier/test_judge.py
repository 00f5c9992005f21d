# SPDX-License-Identifier: Apache-2.0
"""A judge that fails in any way costs bounded time and grants nothing."""

import asyncio
import gzip
import json
import random
import statistics
import time
import tracemalloc

import pytest

from r1reward_trainer.method.judge_prompt import PLAIN_QUESTION, judge_prompt, parse_judgement
from r1reward_trainer.method.reward import JudgeOutcome
from r1reward_trainer.verifier.cache import ENTRY_BYTES, JudgementCache
from r1reward_trainer.verifier.circuit import Circuit
from r1reward_trainer.verifier.judge import Judge, JudgeOptions, backoff
from tests.unit.verifier.judge_stub import Reply, fenced, honest

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
    assert time.monotonic() - start < 10  # a sample's time is 15 s
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


FILTERED = {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}
REFUSALS = [
    *(Reply(status=status) for status in (400, 403, 413, 422)),
    Reply(raw=json.dumps(FILTERED).encode()),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["400", "403", "413", "422", "filter"])
def test_texts_that_the_judge_refuses_leave_it_to_the_others(judge_stub, caplog, refusal):
    judge_stub.behaviour = lambda text, n: refusal if "reason" in fenced(text) else honest(text, n)
    outcomes = ask_in_turn(judge_stub.url, [*different(6), QUESTION], Circuit(threshold=2))
    assert outcomes == ["refused"] * 6 + ["match"]
    assert [text == PLAIN_QUESTION for text in judge_stub.questions] == [False, True] * 6 + [False]
    assert caplog.text.count("refuses the text") == 1


@pytest.mark.parametrize("refusal", REFUSALS, ids=["400", "403", "413", "422", "filter"])
def test_a_judge_that_refuses_every_text_is_out_and_no_chains_fault(judge_stub, caplog, refusal):
    judge_stub.behaviour = lambda *_: refusal
    outcomes = ask_in_turn(judge_stub.url, different(20))
    assert outcomes == ["unavailable"] * 20
    assert len(judge_stub.calls) == 2  # one question, and a plain one
    assert "correct rl.verifier.judge: endpoint, endpointModel or apiKeySecretRef" in caplog.text
    assert "to a plain question, too" in caplog.text


def test_a_judge_that_is_out_when_it_is_asked_a_plain_question_blames_no_text(judge_stub):
    judge_stub.behaviour = lambda _, nth: Reply(status=400 if nth == 1 else 503)
    assert ask(judge_stub.url, [QUESTION]) == ["unavailable"]


def test_a_judge_that_hangs_costs_one_deadline_whatever_the_number_of_samples(judge_stub):
    judge_stub.behaviour = lambda *_: Reply(hang=True)
    start = time.monotonic()
    outcomes = ask(judge_stub.url, different(400), max_concurrency=8, timeout_seconds=0.5)
    assert outcomes == ["unavailable"] * 400
    assert time.monotonic() - start < 12  # one deadline after another would take 25 s
    assert len(judge_stub.calls) <= 16  # the first eight, and those that took their places


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_judge_that_trickles_bytes_is_cut_at_the_deadline_of_the_call(judge_stub, where):
    judge_stub.behaviour = lambda *_: Reply(trickle=0.05, trickle_headers=where == "headers")
    circuit = Circuit()
    options = {"max_concurrency": 8, "timeout_seconds": 0.5}
    outcomes = ask(judge_stub.url, different(40), circuit, **options)
    assert outcomes == ["unavailable"] * 40
    # Only calls that end at their own deadline, not at that of the sample, are failures.
    assert circuit.is_open
    assert len(judge_stub.calls) <= 16


def test_a_sample_waits_three_deadlines_at_most_whatever_is_done_to_its_retries(judge_stub):
    def nearly_too_late(_, nth):
        time.sleep(0.4)
        return Reply("neither")

    judge_stub.behaviour = nearly_too_late
    start = time.monotonic()
    outcomes = ask(judge_stub.url, different(25), max_concurrency=1, timeout_seconds=0.5)
    assert time.monotonic() - start < 15  # all tries of all would take 30 s
    assert set(outcomes) <= {"unknown", "unavailable"}


def test_retries_are_spread_and_the_pauses_double():
    draws = [i / 100 for i in range(100)]
    first, second = ([backoff(0.2, n, d) for d in draws] for n in (1, 2))
    assert statistics.mean(first) == pytest.approx(0.2, rel=0.02)
    assert (first[0], first[-1]) == (0, pytest.approx(0.4, rel=0.02))
    assert second == [2 * pause for pause in first]


def test_a_pause_stands_before_each_retry(judge_stub, monkeypatch):
    arrivals = []

    def out(*_):
        arrivals.append(time.monotonic())
        return Reply(status=503)

    judge_stub.behaviour = out
    monkeypatch.setattr(random, "random", lambda: 0.5)
    ask(judge_stub.url, [QUESTION], backoff_seconds=0.1)
    assert len(arrivals) == 3
    assert arrivals[1] - arrivals[0] >= 0.1
    assert arrivals[2] - arrivals[1] >= 0.2


def test_an_answer_is_never_unpacked_to_more_than_was_sent(judge_stub):
    bomb = gzip.compress(b"1" * (64 << 20))
    judge_stub.behaviour = lambda *_: Reply(raw=bomb, headers={"Content-Encoding": "gzip"})
    tracemalloc.start()
    try:
        assert ask(judge_stub.url, [QUESTION]) == ["unavailable"]
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_remembered_judgements_stay_within_their_memory():
    bound = 1 << 20
    cache = JudgementCache(bound)
    tracemalloc.start()
    try:
        for i in range(20_000):
            cache.put(f"question {i} " + "x" * 500, JudgeOutcome.MATCH)
            assert cache.bytes <= bound
        assert tracemalloc.get_traced_memory()[0] <= bound
    finally:
        tracemalloc.stop()
    assert cache.get("question 19999 " + "x" * 500) is JudgeOutcome.MATCH
    assert cache.get("question 0 " + "x" * 500) is None


def test_without_memory_nothing_is_remembered(judge_stub):
    assert ask_in_turn(judge_stub.url, [QUESTION] * 2, cache_bytes=0) == ["match"] * 2
    assert len(judge_stub.calls) == 2


def test_what_another_model_said_is_forgotten(judge_stub):
    # The third question finds the model gone; the listing then names another.
    judge_stub.behaviour = lambda _, nth: Reply(status=404) if nth == 2 else Reply("1")
    first, second = different(2)

    async def run():
        judge = Judge(JudgeOptions(url=judge_stub.url, timeout_seconds=5))
        try:
            outcomes = [await judge.ask(first, parse_judgement)]
            outcomes.append(await judge.ask(second, parse_judgement))
            judge_stub.models = ["a-newer-judge"]
            outcomes.append(await judge.ask(second, parse_judgement))
            outcomes.append(await judge.ask(first, parse_judgement))
            return [outcome.value for outcome in outcomes]
        finally:
            await judge.close()

    assert asyncio.run(run()) == ["match", "unavailable", "match", "match"]
    assert [call["model"] for call in judge_stub.calls] == ["the-judge"] * 2 + ["a-newer-judge"] * 2


def test_a_judge_that_is_not_there_costs_little(judge_stub):
    judge_stub.close()
    start = time.monotonic()
    outcomes = ask(judge_stub.url, different(200), max_concurrency=8)
    assert outcomes == ["unavailable"] * 200
    assert time.monotonic() - start < 12  # a sample's time is 15 s


def test_calls_in_flight_are_bounded(judge_stub):
    assert ask(judge_stub.url, different(60), max_concurrency=4) == ["match"] * 60
    assert judge_stub.most_in_flight <= 4


def test_an_equal_question_is_asked_once(judge_stub):
    assert ask_in_turn(judge_stub.url, [QUESTION] * 5) == ["match"] * 5
    assert len(judge_stub.calls) == 1


@pytest.mark.parametrize("options", [{}, {"cache_bytes": 0}], ids=["cache", "no-cache"])
def test_equal_questions_at_the_same_time_are_asked_once_and_all_are_answered(judge_stub, options):
    first, second = different(2)
    assert ask(judge_stub.url, [first, second] * 20, **options) == ["match"] * 40
    assert sorted(judge_stub.questions) == sorted([first, second])


def test_a_failure_is_shared_by_those_who_wait_for_it_and_by_nobody_later(judge_stub):
    judge_stub.behaviour = lambda _, nth: Reply(status=404) if nth == 1 else Reply("0")

    async def run():
        judge = Judge(JudgeOptions(url=judge_stub.url, model="m", timeout_seconds=5))

        async def asked_again_at_once():
            """The second question comes in the same turn of the loop as the first's failure."""
            return [await judge.ask(QUESTION, parse_judgement) for _ in range(2)]

        try:
            return await asyncio.gather(*(asked_again_at_once() for _ in range(5)))
        finally:
            await judge.close()

    assert asyncio.run(run()) == [[JudgeOutcome.UNAVAILABLE, JudgeOutcome.MISMATCH]] * 5
    assert len(judge_stub.calls) == 2


def test_one_who_stops_waiting_leaves_the_call_to_the_others_and_the_last_ends_it(judge_stub):
    judge_stub.behaviour = lambda _, nth: Reply(hang=nth != 2)

    async def until(number_of_calls):
        async with asyncio.timeout(20):
            while len(judge_stub.calls) < number_of_calls:
                await asyncio.sleep(0.01)

    async def run():
        options = JudgeOptions(url=judge_stub.url, model="m", timeout_seconds=20, max_concurrency=1)
        judge = Judge(options)
        try:
            gone = [asyncio.create_task(judge.ask(QUESTION, parse_judgement)) for _ in range(3)]
            await until(1)
            for task in gone:
                task.cancel()
            # The one slot is free again, and nobody gets the cancellation of the first call.
            joined = [asyncio.create_task(judge.ask(QUESTION, parse_judgement)) for _ in range(2)]
            ended = await asyncio.gather(*gone, return_exceptions=True)
            assert [type(error) for error in ended] == [asyncio.CancelledError] * 3
            assert await asyncio.gather(*joined) == [JudgeOutcome.MATCH] * 2

            other = different(1)[0]
            first = asyncio.create_task(judge.ask(other, parse_judgement))
            second = asyncio.create_task(judge.ask(other, parse_judgement))
            await until(3)
            first.cancel()
            await asyncio.wait([first])
            judge_stub.let_go()
            return await second
        finally:
            await judge.close()

    assert asyncio.run(run()) is JudgeOutcome.MATCH
    assert len(judge_stub.calls) == 3


def test_the_oldest_judgement_is_forgotten_first(judge_stub):
    first, second, third = different(3)
    room = {"cache_bytes": 2 * ENTRY_BYTES}
    ask_in_turn(judge_stub.url, [first, second, first, third, first, second], **room)
    assert judge_stub.questions == [first, second, third, second]


def test_an_outage_is_not_remembered_as_a_judgement(judge_stub):
    judge_stub.behaviour = lambda _, nth: Reply(status=404) if nth == 1 else Reply("1")
    assert ask_in_turn(judge_stub.url, [QUESTION] * 2) == ["unavailable", "match"]


def test_after_an_outage_one_call_probes_and_its_success_ends_the_outage(judge_stub):
    now = 100.0
    circuit = Circuit(threshold=2, cooldown=10, clock=lambda: now)
    judge_stub.behaviour = lambda *_: Reply(status=404)
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
