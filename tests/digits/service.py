# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.digits.service`: teacher and judge over the OpenAI chat protocol.

With TEACHER_API_KEY in the environment every question must bring that key.
"""

import argparse
import base64
import binascii
import os
import time
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel

from tests.digits.teacher import DigitsTeacher, judge, read_prompt

MODEL = "digits-teacher"


class ChatRequest(BaseModel):
    """What of POST /v1/chat/completions is heeded."""

    model: str
    messages: list[dict[str, Any]]
    temperature: float = 1.0
    seed: int = 0


class _Outage:
    """Until when questions are answered with 500, by the monotonic clock."""

    until = 0.0


def build_app(api_key: str | None = None) -> FastAPI:
    """The service.

    Args:
        api_key: what every question must bring; None: questions need no key.
    """
    app = FastAPI(title="digits teacher")
    teacher = DigitsTeacher()
    outage = _Outage()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tests"}]}

    @app.post("/outage")
    def begin_outage(seconds: float) -> dict[str, float]:
        """From now on for so many seconds every question is answered with 500."""
        outage.until = time.monotonic() + seconds
        return {"seconds": seconds}

    @app.post("/v1/chat/completions")
    def chat_completions(
        request: ChatRequest, authorization: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        if time.monotonic() < outage.until:
            raise HTTPException(500, "the teacher is out of order for a while")
        if api_key is not None and authorization != f"Bearer {api_key}":
            raise HTTPException(401, "the API key is missing or wrong")
        if request.model != MODEL:
            raise HTTPException(404, f"model {request.model!r} is not served")
        text, images = _content(request.messages)
        return _completion(_reply(teacher, text, images, request))

    return app


def _reply(teacher: DigitsTeacher, text: str, images: list[bytes], request: ChatRequest) -> str:
    judgement = judge(text)
    if judgement is not None:
        return judgement
    choice = read_prompt(text)
    if choice is None or not images:
        raise HTTPException(400, "this is neither a digits prompt with an image nor a judge prompt")
    return teacher.answer(images[0], choice, request.temperature, request.seed)


def _content(messages: list[dict[str, Any]]) -> tuple[str, list[bytes]]:
    """Text and images of the last message."""
    content = messages[-1].get("content", "") if messages else ""
    if isinstance(content, str):
        return content, []
    texts = [part["text"] for part in content if part.get("type") == "text"]
    urls = [part["image_url"]["url"] for part in content if part.get("type") == "image_url"]
    try:
        return "".join(texts), [base64.b64decode(url.partition(",")[2]) for url in urls]
    except binascii.Error as error:
        raise HTTPException(400, "an image is no data: URL with base64") from error


def _completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-digits",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    uvicorn.run(
        build_app(os.environ.get("TEACHER_API_KEY")),
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
