# SPDX-License-Identifier: Apache-2.0
"""A rollout server without a model: base weights always say 1, others read the digit."""

import base64
import re
from typing import Any

import numpy as np

from r1reward_trainer.render import Renderer, chain
from tests.digits.rows import WORDS, decode, digits
from tests.unit.rollout.protocol_server import Loop, ProtocolServer, log_probs

_TOKENS_AN_IMAGE = 4


class DigitsServer(ProtocolServer):
    """Speaks the protocol over HTTP; answers with text by the version of its weights.

    Attributes:
        answered: the version of the weights, by answer.
        asked: the same with how the prompt was to be sampled.
    """

    def __init__(self, loop: Loop, renderer: Renderer, job_uid: str) -> None:
        super().__init__(loop, "127.0.0.1", job_uid=job_uid)
        self._renderer = renderer
        self.answered: list[str] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.asked.append((self.version, body["sampling_params"]))
        expanded = [
            token
            for given in body["token_ids"]
            for token in [given]
            * (_TOKENS_AN_IMAGE if given == self._renderer.image_token_id else 1)
        ]
        self.answered.append(self.version)
        ids = list(self._renderer.response_ids(self._judge(body)))
        return 200, {
            "prompt_token_ids": expanded,
            "choices": [
                {
                    "index": index,
                    "token_ids": ids,
                    "logprobs": {"content": log_probs(ids, body, -0.1)},
                    "finish_reason": "stop",
                    "weight_versions": [{"version": self.version, "start": 0, "end": len(ids)}],
                }
                for index in range(body["sampling_params"]["n"])
            ],
        }

    def _judge(self, body: dict[str, Any]) -> str:
        if self.version.startswith("base"):
            return chain(1, "the first")
        words = re.search(r"1:(\w+) 2:(\w+)", self._renderer.decode(body["token_ids"]))
        assert words
        (image,) = body["content_parts"]
        pixels = decode(base64.b64decode(image["url"].partition(",")[2]))
        nearest = int(np.abs(digits().pixels - pixels).sum(axis=1).argmin())
        word = WORDS[digits().labels[nearest]]
        return chain(1 + words.groups().index(word), word)
