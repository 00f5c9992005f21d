# SPDX-License-Identifier: Apache-2.0
"""Real servers on the loopback interface: a judge stub, and the verifier itself."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn

from r1reward_api.resource.training import Algorithm
from r1reward_trainer.verifier.app import create_app
from r1reward_trainer.verifier.circuit import Circuit
from r1reward_trainer.verifier.judge import Judge, JudgeOptions
from r1reward_trainer.verifier.listening import listening
from r1reward_trainer.verifier.metrics import VerifierMetrics
from r1reward_trainer.verifier.scoring import Scoring
from r1reward_trainer.verifier.service import RewardService
from tests.unit.verifier.judge_stub import JudgeStub

TOKEN = "attempt-token"


@pytest.fixture
def judge_stub():
    stub = JudgeStub()
    yield stub
    stub.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def served(app) -> Iterator[str]:
    """The base URL of an ASGI application while it is served."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host, port = listener.getsockname()
        server = _Server(uvicorn.Config(app, **listening(host, port, grace_period_seconds=7)))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        assert server.listening.wait(30)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def verifier():
    """Starts verifiers; returns their URL."""
    with ExitStack() as running:

        def start(
            judge: JudgeStub | str | None = None,
            algorithm: Algorithm | None = None,
            max_body_bytes: int = 1 << 20,
            tail: Path | None = None,
            circuit: Circuit | None = None,
            **options,
        ) -> str:
            metrics = VerifierMetrics()
            asked = None
            if judge is not None:
                url = judge if isinstance(judge, str) else judge.url
                given = {"model": "m", "timeout_seconds": 5, "backoff_seconds": 0.01, **options}
                asked = Judge(JudgeOptions(url=url, **given), metrics, circuit)
            service = RewardService(Scoring(algorithm or Algorithm()), asked, metrics)
            app = create_app(service, TOKEN, tail=tail, max_body_bytes=max_body_bytes)
            return running.enter_context(served(app))

        yield start
