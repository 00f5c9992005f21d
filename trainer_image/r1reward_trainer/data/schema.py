# SPDX-License-Identifier: Apache-2.0
"""One raw record becomes one preference row, or a named reason why it cannot."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Protocol

from r1reward_trainer.data.rows import AnnotatedRow, Row, SetRow
from r1reward_trainer.images import InvalidImage, load_image
from r1reward_trainer.method.verdict import format_ok, parse_verdict

MAX_TEXT_BYTES = 100_000
MAX_ID_BYTES = 1024
_DATA_URL = "data:"
_SHOWN_CHARACTERS = 200
_WRITTEN_GOLD = {"1": 1, "2": 2, "1.0": 1, "2.0": 2}
"""A column of whole numbers with a gap comes from many tools as one of floats."""

Record = Mapping[str, Any]
ReadImage = Callable[[str], bytes]
"""The image at a path relative to the record's file.

Raises:
    LookupError: there is none.
"""


class Media(Protocol):
    """The images that lie beside a record's file."""

    def image(self, path: str) -> bytes:
        """Bytes of the image at a path.

        Raises:
            LookupError: there is none.
        """
        ...

    @property
    def videos_cut(self) -> int:
        """Videos so far of which `frames` gave fewer than for a larger `most`."""
        ...

    def frames(self, folder: str, most: int) -> Sequence[bytes]:
        """The frames of a video, in their order; evenly chosen where there are more than `most`.

        Raises:
            LookupError: there are none.
        """
        ...


class ImagePath(str):
    """An image as a path, whatever it looks like."""

    __slots__ = ()


@dataclass(frozen=True)
class Video:
    """Images as the frames in a folder.

    Attributes:
        folder: relative to the record's file.
    """

    folder: str


class BadReason(StrEnum):
    """Why a record is no row. Part of the quality report."""

    NOT_JSON = "not-json"
    NOT_CSV = "not-csv"
    MISSING_FIELD = "missing-field"
    WRONG_TYPE = "wrong-type"
    WRONG_GOLD = "gold-not-1-or-2"
    EMPTY_TEXT = "empty-text"
    TEXT_TOO_LONG = "text-too-long"
    NO_IMAGE = "no-image"
    TOO_MANY_IMAGES = "too-many-images"
    IMAGE_MISSING = "image-missing"
    NOT_THIS_FORMAT = "not-this-format"
    IMAGE_INVALID = "image-invalid"
    PROMPT_TOO_LONG = "prompt-too-long"
    WRONG_RESPONSE = "wrong-response"
    RESPONSE_TOO_LONG = "response-too-long"


class LeftOut(Exception):
    """A record that is in order but holds no preference, such as a tie.

    Args:
        why: one word for the report.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


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


def parse_row(record: Record, max_images: int, media: Media) -> Row:
    """A record as a preference row.

    Args:
        record: `id` (text or integer), `question`, `answer1`, `answer2`, `gold` (1 or 2),
            `images` (one or a list) and optionally `source`. An image is bytes, a mapping with
            `bytes` or `path`, base64 text, a data URL, or a path relative to the record's file.
        max_images: most images in a row.
        media: reads paths.

    Raises:
        BadRecord: with the reason and the field.
    """
    return Row(
        id=_identifier(record, "id"),
        question=_text(record, "question"),
        answer1=_text(record, "answer1"),
        answer2=_text(record, "answer2"),
        gold=_gold(record),
        images=_images(record, max_images, media),
        source=_optional(record, "source"),
    )


def parse_set_row(record: Record, max_images: int, media: Media) -> SetRow:
    """A record of an evaluation set, which may have `item` (else its id) and `category`.

    Raises:
        BadRecord: as `parse_row`.
    """
    row = parse_row(record, max_images, media)
    item = row.id if record.get("item") is None else _identifier(record, "item")
    return SetRow(
        **{name: getattr(row, name) for name in Row.__slots__},
        item=item,
        category=_optional(record, "category"),
    )


def parse_chain(record: Record, max_images: int, media: Media) -> AnnotatedRow:
    """A record with a user's own chain of thought in `response`.

    Raises:
        BadRecord: as `parse_row`, or when the response has not the format or is wrong.
    """
    row = parse_row(record, max_images, media)
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
        there = ascii(", ".join(map(str, record)))[:_SHOWN_CHARACTERS]
        raise BadRecord(BadReason.MISSING_FIELD, f"{name} is missing; there are {there}")
    value = record[name]
    if value is None:
        raise BadRecord(BadReason.MISSING_FIELD, f"{name} is null")
    return value


def _identifier(record: Record, name: str) -> str:
    value = _value(record, name)
    number = isinstance(value, int) and not isinstance(value, bool)
    text = str(value) if number else _text(record, name)
    if len(text.encode()) > MAX_ID_BYTES:
        raise BadRecord(BadReason.TEXT_TOO_LONG, f"{name} has more than {MAX_ID_BYTES} bytes")
    return text


def _optional(record: Record, name: str) -> str:
    return "" if record.get(name) in (None, "") else _text(record, name)


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
    if isinstance(value, str):  # CSV knows only text
        if (known := _WRITTEN_GOLD.get(value.strip())) is not None:
            return known
        shown = ascii(value[:_SHOWN_CHARACTERS])
        raise BadRecord(BadReason.WRONG_TYPE, f"gold is {shown}, must be 1 or 2")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRecord(BadReason.WRONG_TYPE, f"gold is {type(value).__name__}, must be 1 or 2")
    if value not in (1, 2):
        shown = str(value)[:_SHOWN_CHARACTERS]
        raise BadRecord(BadReason.WRONG_GOLD, f"gold is {shown}, must be 1 or 2")
    return value


def _images(record: Record, max_images: int, media: Media) -> tuple[bytes, ...]:
    value = _value(record, "images")
    if isinstance(value, Video):
        images = _frames(value, max_images, media)
    else:
        values = image_list(value)
        if not values:
            raise BadRecord(BadReason.NO_IMAGE, "images is empty")
        if len(values) > max_images:
            raise BadRecord(
                BadReason.TOO_MANY_IMAGES,
                f"images has {len(values)} entries; the runtime's serving.imagesPerPrompt "
                f"is {max_images}",
            )
        images = tuple(image_bytes(v, n, media.image) for n, v in enumerate(values))
    for number, data in enumerate(images):
        if (fault := _fault(data)) is not None:
            raise BadRecord(BadReason.IMAGE_INVALID, f"images[{number}]: {fault}")
    return images


@lru_cache(maxsize=2)  # rows about one image mostly follow each other
def _fault(image: bytes) -> str | None:
    """Why the image cannot be used; it is decoded to know."""
    try:
        load_image(image)
    except InvalidImage as error:
        return str(error)
    return None


def image_list(value: Any) -> Sequence[Any]:
    """What `images` holds: a list, one image, or a JSON list as text.

    Raises:
        BadRecord: when it is none of them.
    """
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, str) and value.lstrip().startswith("["):  # a list in a cell of CSV
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRecord(BadReason.WRONG_TYPE, f"images is no JSON list: {error}") from error
        return found if isinstance(found, list) else [value]
    if isinstance(value, str | bytes | Mapping):
        return [value]
    raise BadRecord(BadReason.WRONG_TYPE, f"images is {type(value).__name__}, must be a list")


def _frames(video: Video, most: int, media: Media) -> tuple[bytes, ...]:
    try:
        return tuple(media.frames(video.folder, most))
    except LookupError as error:
        raise BadRecord(BadReason.IMAGE_MISSING, f"images: {error}") from error


def names_file(image: str) -> bool:
    """Whether the text is a path, and not the file itself as base64 or a data URL."""
    if image.startswith(_DATA_URL):
        return False
    return isinstance(image, ImagePath) or "." in image  # a suffix; no letter of base64


def image_bytes(value: Any, number: int, read: ReadImage) -> bytes:
    """The file of one image, which is not decoded.

    Args:
        value: bytes, a mapping with `bytes` or `path`, base64 text, a data URL or a path.
        number: of the image in its record, from 0.
        read: reads paths.

    Raises:
        BadRecord: when it is none of them, or there is no such file.
    """
    if isinstance(value, Mapping):  # as Hugging Face datasets store images in Parquet
        path = value.get("path")
        value = value.get("bytes")
        if value is None and isinstance(path, str):
            value = ImagePath(path)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise BadRecord(
            BadReason.WRONG_TYPE,
            f"images[{number}] is {type(value).__name__}, must be bytes, base64 or a path",
        )
    if names_file(value):
        try:
            return read(value)
        except LookupError as error:
            raise BadRecord(BadReason.IMAGE_MISSING, f"images[{number}]: {error}") from error
    if value.startswith(_DATA_URL):
        value = value.partition(",")[2]
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRecord(
            BadReason.IMAGE_INVALID, f"images[{number}] is neither base64 nor a file name"
        ) from error
