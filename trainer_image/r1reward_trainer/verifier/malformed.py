# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a request, in few words and without repeating it."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

_MOST_FAULTS = 10
_LONGEST_NAME = 100


async def malformed(_: Request, error: Exception) -> Response:
    """422 with place and words of the first faults, but without the input: it may be long, and no
    valid JSON. The name of an unknown field is input, too."""
    if not isinstance(error, RequestValidationError):
        raise error
    detail = [
        {
            "loc": [p[:_LONGEST_NAME] if isinstance(p, str) else p for p in fault["loc"]],
            "msg": _words(fault),
            "type": fault["type"],
        }
        for fault in error.errors()[:_MOST_FAULTS]
    ]
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")


def _words(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "model_attributes_type" and fault["loc"] == ("body",):
        return "must be a JSON object, sent with Content-Type: application/json"
    return fault["msg"]
