# SPDX-License-Identifier: Apache-2.0
"""The scoring front over HTTP, and behind it a server that speaks a rollout server's protocol."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import torch

from r1reward_trainer.render import Renderer, chain
from r1reward_trainer.rollout.client import RolloutClient, Timeouts
from r1reward_trainer.scoring.app import create_app
from r1reward_trainer.scoring.front import PROBE_SECONDS, Front
from r1reward_trainer.scoring.judging import HELD_BYTES, IMAGE_BYTES, Judge, Rules
from r1reward_trainer.scoring.places import Limits
from r1reward_trainer.scoring.server import ModelServer
from tests.integration.rollout.tiny_model import build_processor
from tests.unit.rollout.asking import eventually
from tests.unit.rollout.protocol_server import JOB_UID, TOKEN, Loop, ProtocolServer, event_loop
from tests.unit.verifier.conftest import served

torch.set_num_threads(1)

CLIENT_TOKEN = "token-of-the-clients"
FOLDER = "/models/base"
DIGEST = "sha256:" + "d" * 64
RULES = Rules(max_new_tokens=200, max_model_length=4000, max_images=2)
Says = Callable[[str, str], str]
"""The response to the two answers in the order in which they are shown."""


def better(first: str, second: str) -> str:
    """A judge for whom the answer with the larger number is better."""
    numbers = [int(re.findall(r"\d+", text)[0]) for text in (first, second)]
    return chain(1 if numbers[0] > numbers[1] else 2, f"{first} or {second}?")


def is_probe(body: dict[str, Any]) -> bool:
    return body["sampling_params"]["max_tokens"] == 1


class JudgeServer(ProtocolServer):
    """Reads prompts `question|answer|answer` and says what it is told to say.

    Attributes:
        says: its response.
        folder: the model that it says it was started with.
        refused: prompts with this text get 400.
        crashed: prompts with this text get 500.
        stuck: prompts with this text get no answer.
        misread: prompts with this text are read as others.
        pace: seconds that it takes for a prompt, one after another; what comes meanwhile waits.
    """

    def __init__(self, loop: Loop, renderer: Renderer, says: Says) -> None:
        super().__init__(loop, "127.0.0.1")
        self.says = says
        self.folder = FOLDER
        self.refused: str | None = None
        self.crashed: str | None = None
        self.stuck: str | None = None
        self.misread: str | None = None
        self.pace = 0.0
        self._turn = asyncio.Lock()
        self._renderer = renderer

    async def _route(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "policy", "root": self.folder}]}
        return await super()._route(path, body)

    async def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        async with self._turn:
            await asyncio.sleep(0.0 if is_probe(body) else self.pace)
        text = self._renderer.decode(body["token_ids"])
        if self.refused is not None and self.refused in text:
            return 400, {"error": {"message": "the engine has no words for it"}}
        if self.crashed is not None and self.crashed in text:
            return 500, {"error": {"message": "the engine has stumbled"}}
        if self.stuck is not None and self.stuck in text:
            await asyncio.Event().wait()
        status, answer = await super()._generate(body)
        image = self._renderer.image_token_id
        answer["prompt_token_ids"] = [
            token for given in body["token_ids"] for token in [given] * (4 if given == image else 1)
        ]
        if self.misread is not None and self.misread in text:
            answer["prompt_token_ids"].append(7)
        return status, answer

    def sampled(self, body: dict[str, Any]) -> list[int]:
        if is_probe(body):
            return [7]
        text = self._renderer.decode(body["token_ids"])
        found = re.search(r"\|\|(.*?)\|\|(.*?)\|\|(.*?)\|\|", text, re.DOTALL)
        assert found, text
        return list(self._renderer.response_ids(self.says(found[2], found[3])))


class Site:
    """Starts servers and fronts, which end with the test."""

    def __init__(self, loop: Loop, stack: ExitStack) -> None:
        self._loop = loop
        self._stack = stack
        self.renderer = Renderer(
            build_processor(),
            template="||{question}||{answer1}||{answer2}||",
            min_pixels=28 * 28,
            max_pixels=56 * 56,
            max_prompt_tokens=3000,
        )

    def server(self, says: Says = better) -> JudgeServer:
        server = JudgeServer(self._loop, self.renderer, says)
        server.start()
        self._stack.callback(server.kill)
        return server

    def judge(
        self, server: JudgeServer, rules: Rules, image_bytes: int, held_bytes: int = HELD_BYTES
    ) -> tuple[Judge, ModelServer]:
        client = RolloutClient(
            server.address,
            server.port,
            token=TOKEN,
            job_uid=JOB_UID,
            timeouts=Timeouts(probe=5.0, control=5.0, request=30.0),
        )
        model = ModelServer(client, FOLDER)
        return Judge(self.renderer, model.ask, DIGEST, rules, image_bytes, held_bytes), model

    def front(
        self,
        server: JudgeServer,
        *,
        rules: Rules = RULES,
        limits: Limits | None = None,
        image_bytes: int = IMAGE_BYTES,
        held_bytes: int = HELD_BYTES,
        verify: Callable[[], None] = lambda: None,
        probe_seconds: float = PROBE_SECONDS,
        ready: bool = True,
    ) -> str:
        """The URL of a front; waits until it is ready."""
        judge, model = self.judge(server, rules, image_bytes, held_bytes)
        front = Front(
            judge, model, verify, limits or Limits(), interval=0.05, probe_seconds=probe_seconds
        )
        url = self._stack.enter_context(served(create_app(front, CLIENT_TOKEN)))
        if ready:
            eventually(lambda: httpx.get(f"{url}/ready").status_code == 200)
        return url


@pytest.fixture
def site() -> Iterator[Site]:
    with event_loop() as loop, ExitStack() as stack:
        yield Site(loop, stack)
