# SPDX-License-Identifier: Apache-2.0
"""Rows of a file to be scored: pairs or groups of answers to one question."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from r1reward_trainer.scoring.protocol import ScoreRequest

_DATA_URL = "data:"
_SHOWN = 200
MAX_ID = 1024
"""Letters of an id that are kept."""

ReadImage = Callable[[str], bytes]
"""The file at a path relative to the row's own.

Raises:
    LookupError: there is none.
"""


class BadItem(ValueError):
    """A row that cannot be scored; the message names the field."""


@dataclass(frozen=True)
class Item:
    """One row.

    Attributes:
        id: as the row names itself; else `<file>:<line>`.
        request: what is asked about it.
    """

    id: str
    request: ScoreRequest


def parse_item(record: Mapping[str, Any], place: str, read_image: ReadImage) -> Item:
    """A row with `question`, `answers` (or `answer1` and `answer2`), and optionally `images` and
    `id`; other columns are not looked at.

    Args:
        record: the row.
        place: `<file>:<line>`.
        read_image: reads a relative path.

    Raises:
        BadItem: when it is none.
    """
    answers = record.get("answers")
    if answers is None:
        for name in ("answer1", "answer2"):
            if record.get(name) is None:
                there = ", ".join(map(ascii, record))[:_SHOWN]
                raise BadItem(f"neither answers nor {name} is there; there are {there}")
        answers = [record["answer1"], record["answer2"]]
    images = record.get("images")
    if images is None:
        images = []
    if not isinstance(images, list | tuple):
        raise BadItem(f"images is {type(images).__name__}, must be a list")
    try:
        request = ScoreRequest.model_validate(
            {
                "question": record.get("question"),
                "answers": answers,
                "images": [_encoded(value, n, read_image) for n, value in enumerate(images)],
            }
        )
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise BadItem(f"{field}: {fault['msg']}") from None
    given = record.get("id")
    return Item(place if given is None else str(given)[:MAX_ID], request)


def _encoded(value: Any, number: int, read_image: ReadImage) -> str:
    """Base64 of an image given as bytes, as `{"bytes": …}`, as base64, as data URL or as path."""
    if isinstance(value, Mapping):  # as Hugging Face datasets store images in Parquet
        value = value.get("bytes")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if not isinstance(value, str):
        raise BadItem(
            f"images[{number}] is {type(value).__name__}, must be bytes, base64 or a path"
        )
    if value.startswith(_DATA_URL) or "." not in value:  # a point is no letter of base64
        return value
    try:
        return base64.b64encode(read_image(value)).decode()
    except LookupError as error:
        raise BadItem(f"images[{number}]: {error}") from error
