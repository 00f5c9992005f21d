# SPDX-License-Identifier: Apache-2.0
"""The reward functions for verl and TRL: a reward, or an error in bounded time."""

import time

import pytest

from r1reward_trainer.render import chain
from r1reward_trainer.verifier import reward_function
from r1reward_trainer.verifier.reward_function import NoReward, compute_score, reward_func
from tests.unit.verifier.conftest import TOKEN
from tests.unit.verifier.raw_server import STARTS, flooded, raw_server, trickled

RIGHT = chain(1, "so Response 1 is better")


@pytest.fixture
def addressed(monkeypatch):
    """Sets where the verifier is and how long it is asked."""

    def at(url: str, seconds: float = 20, token: str = TOKEN) -> None:
        monkeypatch.setenv("R1_VERIFIER_URL", url)
        monkeypatch.setenv("R1_VERIFIER_TOKEN", token)
        monkeypatch.setenv("R1_VERIFIER_SECONDS", str(seconds))

    return at


def test_both_functions_give_the_verifiers_rewards(verifier, judge_stub, addressed):
    addressed(verifier(judge_stub) + "/")
    assert compute_score("any", RIGHT, "1", extra_info={"index": 1}) == {
        "score": 2.0,
        "acc": 1,
        "format": 1,
        "consistency": 1,
    }
    assert reward_func(completions=[RIGHT, "?"], gold=[1, 2], prompts=["p", "p"]) == [2.0, 0.0]


@pytest.mark.parametrize("beginning", STARTS.values(), ids=STARTS)
def test_a_verifier_that_trickles_bytes_is_cut_at_the_deadline(addressed, beginning):
    with raw_server(trickled(beginning)) as url:
        addressed(url, seconds=1)
        start = time.monotonic()
        with pytest.raises(NoReward):
            compute_score("any", RIGHT, "1")
        assert time.monotonic() - start < 10


def test_an_answer_without_end_is_cut(addressed, monkeypatch):
    monkeypatch.setattr(reward_function, "MAX_ANSWER_BYTES", 1 << 20)
    with raw_server(flooded) as url:
        addressed(url, seconds=2)
        with pytest.raises(NoReward, match="more than 1048576 bytes"):
            compute_score("any", RIGHT, "1")


def test_a_verifier_that_is_not_there_is_given_up_at_the_deadline(addressed):
    addressed("http://127.0.0.1:9", seconds=1)
    start = time.monotonic()
    with pytest.raises(NoReward, match="no reward in time"):
        reward_func(completions=[RIGHT], gold=[1])
    assert time.monotonic() - start < 10


def test_what_is_refused_is_not_asked_again(verifier, addressed):
    url = verifier()
    addressed(url)
    with pytest.raises(NoReward, match="gold verdict '3'"):
        compute_score("any", RIGHT, "3")
    addressed(url, token="s3cret")
    with pytest.raises(NoReward, match="HTTP 401") as refused:
        compute_score("any", RIGHT, "1")
    assert "s3cret" not in str(refused.value)
