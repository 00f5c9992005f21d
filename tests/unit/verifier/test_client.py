# SPDX-License-Identifier: Apache-2.0
"""The trainer's client: order, retries and an end to everything."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI, Response

from r1reward_api.reasons import Reason
from r1reward_api.resource.training import Algorithm
from r1reward_trainer.outcome import InfrastructureError, ProgramError
from r1reward_trainer.render import chain
from r1reward_trainer.verifier.client import VerifierClient, VerifierUnavailable
from r1reward_trainer.verifier.protocol import RewardsRequest, Sample
from r1reward_trainer.verifier.scoring import Scoring
from r1reward_trainer.verifier.service import RewardService
from tests.unit.verifier.conftest import TOKEN, served
from tests.unit.verifier.judge_stub import JudgeStub
from tests.unit.verifier.raw_server import STARTS, flooded, raw_server, trickled


def samples(n):
    return [
        Sample(id=f"p{i}", response=chain(i % 2 + 1, f"{i}: Response 2"), gold=2) for i in range(n)
    ]


def failing(replies, forget=False, seconds=0.0):
    """A verifier that gives one status after another, and then rewards (or none, to forget),
    each after so many seconds."""
    app = FastAPI()
    left = list(replies)
    service = RewardService(Scoring(Algorithm()), None)

    @app.post("/v1/rewards")
    async def answer(body: RewardsRequest) -> Response:
        await asyncio.sleep(seconds)
        rewards = await service.rewards([] if forget else body.samples)
        status = left.pop(0) if left else 200
        return Response(rewards.model_dump_json(by_alias=True), status)

    return app


def test_rewards_come_in_the_order_of_the_samples_over_many_batches(
    verifier, judge_stub: JudgeStub
):
    with VerifierClient(verifier(judge_stub), TOKEN, batch_size=7) as client:
        rewards = client.score(samples(100))
    assert [reward.id for reward in rewards] == [f"p{i}" for i in range(100)]
    assert [reward.total for reward in rewards] == [0.5, 2.0] * 50


def test_no_samples_need_no_request():
    with VerifierClient("http://127.0.0.1:9", TOKEN) as client:
        assert client.score([]) == []


def test_a_passing_failure_is_tried_again():
    with served(failing([503, 401])) as url, VerifierClient(url, TOKEN) as client:
        assert [reward.id for reward in client.score(samples(1))] == ["p0"]


def test_rewards_of_other_samples_are_never_taken():
    with (
        served(failing([], forget=True)) as url,
        VerifierClient(url, TOKEN, deadline_seconds=1) as client,
        pytest.raises(VerifierUnavailable, match="other samples") as unavailable,
    ):
        client.score(samples(1))
    assert isinstance(unavailable.value, InfrastructureError)
    assert unavailable.value.reason is Reason.VERIFIER_UNAVAILABLE


@pytest.mark.parametrize("token", [TOKEN, "other"])
def test_a_verifier_that_does_not_answer_ends_the_wait_at_the_deadline(verifier, token):
    url = "http://127.0.0.1:9" if token == TOKEN else verifier()
    start = time.monotonic()
    with (
        VerifierClient(url, token, deadline_seconds=1.5) as client,
        pytest.raises(VerifierUnavailable) as raised,
    ):
        client.score(samples(200))
    assert time.monotonic() - start < 12
    assert token not in raised.value.message


def test_many_samples_have_the_time_of_all_their_rounds():
    times = {"deadline_seconds": 1, "round_seconds": 5}
    with (
        served(failing([], seconds=0.4)) as url,
        VerifierClient(url, TOKEN, batch_size=1, connections=2, **times) as client,
    ):
        assert len(client.score(samples(8))) == 8


@pytest.mark.parametrize("beginning", STARTS.values(), ids=STARTS)
def test_a_verifier_that_trickles_bytes_is_cut_at_the_deadline(beginning):
    with (
        raw_server(trickled(beginning)) as url,
        VerifierClient(url, TOKEN, deadline_seconds=1) as client,
    ):
        start = time.monotonic()
        with pytest.raises(VerifierUnavailable, match="no whole answer"):
            client.score(samples(200))
        assert time.monotonic() - start < 10


def test_an_answer_without_end_is_cut_and_not_kept():
    with (
        raw_server(flooded) as url,
        VerifierClient(url, TOKEN, deadline_seconds=5) as client,
        pytest.raises(VerifierUnavailable, match="more than 16384 bytes"),
    ):
        client.score(samples(1))


def test_the_log_of_a_verifier_that_trickles_or_floods_is_given_up(monkeypatch):
    monkeypatch.setattr("r1reward_trainer.verifier.client.LOG_SECONDS", 0.5)
    with raw_server(trickled(STARTS["body"])) as url, VerifierClient(url, TOKEN) as client:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            list(client.logs(3))
        assert time.monotonic() - start < 10
    monkeypatch.setattr("r1reward_trainer.verifier.client.LOG_SECONDS", 30)
    monkeypatch.setattr("r1reward_trainer.verifier.client.LOG_BYTES", 1 << 20)
    with (
        raw_server(flooded) as url,
        VerifierClient(url, TOKEN) as client,
        pytest.raises(ValueError, match="more than 1048576 bytes"),
    ):
        list(client.logs(1))


def test_closing_the_client_ends_what_waits_for_an_answer():
    asked = threading.Event()

    def silent(connection: socket.socket) -> None:
        asked.set()
        connection.recv(1)

    with raw_server(silent) as url, ThreadPoolExecutor(1) as pool:
        client = VerifierClient(url, TOKEN)
        waiting = pool.submit(client.score, samples(1))
        assert asked.wait(10)
        start = time.monotonic()
        client.close()
        with pytest.raises(VerifierUnavailable, match="closed"):
            waiting.result(10)
        assert time.monotonic() - start < 10
        with pytest.raises(VerifierUnavailable, match="closed"):
            client.score(samples(1))


def test_a_request_that_is_refused_as_malformed_is_not_repeated():
    with (
        served(failing([422, 200])) as url,
        VerifierClient(url, TOKEN) as client,
        pytest.raises(ProgramError, match="HTTP 422"),
    ):
        client.score(samples(1))
