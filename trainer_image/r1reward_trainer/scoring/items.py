# SPDX-License-Identifier: Apache-2.0
"""Rows of a file to be scored: pairs or groups of answers to one question."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from r1reward_trainer.data.schema import BadRecord, ReadImage, image_bytes, image_list
from r1reward_trainer.scoring.protocol import ScoreRequest

_SHOWN = 200
MAX_ID = 1024
"""Letters of an id that are kept."""


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
    `id`; other columns are not looked at. Images are given as to `data.schema.parse_row`.

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
    try:
        request = ScoreRequest.model_validate(
            {
                "question": record.get("question"),
                "answers": answers,
                "images": _encoded(record.get("images"), read_image),
            }
        )
    except BadRecord as error:
        raise BadItem(error.detail) from error
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise BadItem(f"{field}: {fault['msg']}") from None
    given = record.get("id")
    return Item(place if given is None else str(given)[:MAX_ID], request)


def _encoded(images: Any, read_image: ReadImage) -> list[str]:
    """Images as base64; none where the row has none."""
    given = [] if images is None else image_list(images)
    files = (image_bytes(value, n, read_image) for n, value in enumerate(given))
    return [base64.b64encode(file).decode() for file in files]
