# SPDX-License-Identifier: Apache-2.0
"""One raw record becomes one preference row, or a named reason why it cannot."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from r1reward_trainer.data.rows import AnnotatedRow, Row
from r1reward_trainer.images import InvalidImage, load_image
from r1reward_trainer.method.verdict import format_ok, parse_verdict

MAX_TEXT_BYTES = 100_000
MAX_ID_BYTES = 1024
_DATA_URL = "data:"
_SHOWN_CHARACTERS = 200

Record = Mapping[str, Any]
ReadImage = Callable[[str], bytes]
"""Bytes of the image at a path relative to the record's file.

Raises:
    LookupError: there is none.
"""


class BadReason(StrEnum):
    """Why a record is no row. Part of the quality report."""

    NOT_JSON = "not-json"
    MISSING_FIELD = "missing-field"
    WRONG_TYPE = "wrong-type"
    WRONG_GOLD = "gold-not-1-or-2"
    EMPTY_TEXT = "empty-text"
    TEXT_TOO_LONG = "text-too-long"
    NO_IMAGE = "no-image"
    TOO_MANY_IMAGES = "too-many-images"
    IMAGE_MISSING = "image-missing"
    IMAGE_INVALID = "image-invalid"
    PROMPT_TOO_LONG = "prompt-too-long"
    WRONG_RESPONSE = "wrong-response"
    RESPONSE_TOO_LONG = "response-too-long"


class BadRecord(ValueError):
    """A record that is no row.

    Args:
        reason: one of the named reasons.
        detail: the field and what is wrong with it.
    """

    def __init__(self, reason: BadReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Position:
    """Where a record stands.

    Attributes:
        uri: of its file.
        line: from 1.
    """

    uri: str
    line: int


def parse_row(record: Record, max_images: int, read_image: ReadImage) -> Row:
    """A record as a preference row.

    Args:
        record: `id` (text or integer), `question`, `answer1`, `answer2`, `gold` (1 or 2),
            `images` and optionally `source`. An image is bytes, a mapping with `bytes`, base64
            text, a data URL, or a path relative to the record's file.
        max_images: most images in a row.
        read_image: reads a relative path.

    Raises:
        BadRecord: with the reason and the field.
    """
    return Row(
        id=_identifier(record),
        question=_text(record, "question"),
        answer1=_text(record, "answer1"),
        answer2=_text(record, "answer2"),
        gold=_gold(record),
        images=_images(record, max_images, read_image),
        source=_text(record, "source") if record.get("source") is not None else "",
    )


def parse_chain(record: Record, max_images: int, read_image: ReadImage) -> AnnotatedRow:
    """A record with a user's own chain of thought in `response`.

    Raises:
        BadRecord: as `parse_row`, or when the response has not the format or is wrong.
    """
    row = parse_row(record, max_images, read_image)
    response = _text(record, "response").strip()
    if not format_ok(response):
        raise BadRecord(
            BadReason.WRONG_RESPONSE,
            "response is not <think>…</think><answer>1</answer> or …2…",
        )
    verdict = parse_verdict(response)
    if verdict != row.gold:
        raise BadRecord(
            BadReason.WRONG_RESPONSE, f"response says {verdict}, but gold is {row.gold}"
        )
    return AnnotatedRow(
        **{name: getattr(row, name) for name in Row.__slots__},
        response=response,
        attempts=1,
        teacher="",
        temperature=0.0,
    )


def _value(record: Record, name: str) -> Any:
    if name not in record:
        there = ascii(", ".join(record))[:_SHOWN_CHARACTERS]
        raise BadRecord(BadReason.MISSING_FIELD, f"{name} is missing; there are {there}")
    value = record[name]
    if value is None:
        raise BadRecord(BadReason.MISSING_FIELD, f"{name} is null")
    return value


def _identifier(record: Record) -> str:
    value = _value(record, "id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _text(record, "id")
    if len(text.encode()) > MAX_ID_BYTES:
        raise BadRecord(BadReason.TEXT_TOO_LONG, f"id has more than {MAX_ID_BYTES} bytes")
    return text


def _text(record: Record, name: str) -> str:
    value = _value(record, name)
    if not isinstance(value, str):
        raise BadRecord(BadReason.WRONG_TYPE, f"{name} is {type(value).__name__}, must be text")
    if not value.strip():
        raise BadRecord(BadReason.EMPTY_TEXT, f"{name} is empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
        raise BadRecord(BadReason.WRONG_TYPE, f"{name} is no valid Unicode") from error
    if size > MAX_TEXT_BYTES:
        raise BadRecord(BadReason.TEXT_TOO_LONG, f"{name} has {size} bytes, limit {MAX_TEXT_BYTES}")
    return value


def _gold(record: Record) -> int:
    value = _value(record, "gold")
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRecord(BadReason.WRONG_TYPE, f"gold is {type(value).__name__}, must be 1 or 2")
    if value not in (1, 2):
        shown = str(value)[:_SHOWN_CHARACTERS]
        raise BadRecord(BadReason.WRONG_GOLD, f"gold is {shown}, must be 1 or 2")
    return value


def _images(record: Record, max_images: int, read_image: ReadImage) -> tuple[bytes, ...]:
    values = _value(record, "images")
    if not isinstance(values, list | tuple):
        raise BadRecord(BadReason.WRONG_TYPE, f"images is {type(values).__name__}, must be a list")
    if not values:
        raise BadRecord(BadReason.NO_IMAGE, "images is empty")
    if len(values) > max_images:
        raise BadRecord(
            BadReason.TOO_MANY_IMAGES,
            f"images has {len(values)} entries; the runtime's serving.imagesPerPrompt "
            f"is {max_images}",
        )
    images = tuple(_image_bytes(v, n, read_image) for n, v in enumerate(values))
    for number, data in enumerate(images):
        try:
            load_image(data)
        except InvalidImage as error:
            raise BadRecord(BadReason.IMAGE_INVALID, f"images[{number}]: {error}") from error
    return images


def _image_bytes(value: Any, number: int, read_image: ReadImage) -> bytes:
    if isinstance(value, Mapping):  # as Hugging Face datasets store images in Parquet
        value = value.get("bytes")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise BadRecord(
            BadReason.WRONG_TYPE,
            f"images[{number}] is {type(value).__name__}, must be bytes, base64 or a path",
        )
    if value.startswith(_DATA_URL):
        value = value.partition(",")[2]
    elif "." in value:  # no letter of base64, but part of every file name with a suffix
        try:
            return read_image(value)
        except LookupError as error:
            raise BadRecord(BadReason.IMAGE_MISSING, f"images[{number}]: {error}") from error
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRecord(
            BadReason.IMAGE_INVALID, f"images[{number}] is neither base64 nor a file name"
        ) from error
