# SPDX-License-Identifier: Apache-2.0
import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from r1reward_trainer.outcome import ConfigurationError, ProgramError
from r1reward_trainer.scoring.asking import Busy, Failed, Full, Scorer
from r1reward_trainer.scoring.items import BadItem
from r1reward_trainer.scoring.protocol import ScoreRequest
from r1reward_trainer.scoring.target import Target, connected
from tests.unit.verifier.raw_server import STARTS, flooded, raw_server, trickled

PAIR = ScoreRequest(question="q", answers=["a", "b"])
GROUP = ScoreRequest(question="q", answers=["a", "b", "c"])


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("token-of-the-clients")
    return path


def ask(target: Target, work: Callable[[Scorer], Awaitable[Any]]) -> None:
    async def run() -> None:
        async with connected(target) as scorer:
            await work(scorer)

    asyncio.run(run())


@pytest.mark.parametrize("beginning", STARTS.values(), ids=STARTS)
def test_a_front_that_trickles_bytes_is_given_up_at_the_deadline(token: Path, beginning: bytes):
    with raw_server(trickled(beginning)) as url:
        target = Target(url, token, deadline_seconds=0.5)
        start = time.monotonic()
        with pytest.raises(Failed, match=r"no whole answer in 0\.5 s"):
            ask(target, lambda scorer: scorer.score(PAIR))
        with pytest.raises(Busy, match=r"no whole answer in 0\.5 s"):
            ask(target, lambda scorer: scorer.model())
        assert time.monotonic() - start < 30


def test_an_answer_without_end_is_cut_and_not_kept(token: Path):
    with raw_server(flooded) as url:
        target = Target(url, token, deadline_seconds=60)
        with pytest.raises(BadItem, match=f"an answer of more than {3 << 20} bytes"):
            ask(target, lambda scorer: scorer.score(PAIR))
        with pytest.raises(BadItem, match=f"an answer of more than {7 << 20} bytes"):
            ask(target, lambda scorer: scorer.score(GROUP))
        with pytest.raises(ProgramError, match=f"an answer of more than {1 << 20} bytes"):
            ask(target, lambda scorer: scorer.model())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, Failed), (413, BadItem), (422, BadItem), (429, Full), (500, Failed), (502, Failed),
        (503, Busy), (504, Failed), (401, ConfigurationError), (404, ProgramError),
    ],
)  # fmt: skip
def test_a_status_says_whose_fault_it_is(token: Path, status: int, kind: type[Exception]):
    def behave(connection: socket.socket) -> None:
        head = f"HTTP/1.1 {status} No\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\n"
        connection.sendall(head.encode() + b"why")

    with raw_server(behave) as url:
        with pytest.raises(kind, match=f"answers {status}: why") as found:
            ask(Target(url, token), lambda scorer: scorer.score(PAIR))
        assert type(found.value) is kind
        if isinstance(found.value, Busy):
            assert found.value.seconds == 7


@pytest.mark.parametrize("url", ["https://host:8000", "http://host:8000/v1"])
def test_vllm_is_not_asked_otherwise_than_told(token: Path, url: str):
    target = Target(url, token, run_config=token, model=token)
    with pytest.raises(ConfigurationError, match="must look like http://host:port"):
        ask(target, lambda scorer: scorer.model())


def test_a_front_that_is_not_there_is_out(token: Path):
    with raw_server(lambda connection: connection.close()) as url:
        pass
    with pytest.raises(Busy, match="ConnectError"):
        ask(Target(url, token), lambda scorer: scorer.score(PAIR))


def test_who_is_no_front_is_named_as_such(token: Path):
    page = b"<html>Welcome</html>"

    def behave(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)

    with raw_server(behave) as url:
        for work in (lambda scorer: scorer.score(PAIR), lambda scorer: scorer.model()):
            with pytest.raises(ConfigurationError, match=r"no scoring front .*: <html>Welcome"):
                ask(Target(url, token), work)
