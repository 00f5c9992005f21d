# SPDX-License-Identifier: Apache-2.0
import base64
import io
from typing import Any

import pytest
from PIL import Image

from r1reward_trainer.data.rows import AnnotatedRow, Row
from r1reward_trainer.data.schema import (
    BadReason,
    BadRecord,
    Video,
    parse_chain,
    parse_row,
    parse_set_row,
)


def png(side: int = 8, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGE = png()
RECORD: dict[str, Any] = {
    "id": "a",
    "question": "What is this?",
    "answer1": "A cat.",
    "answer2": "A dog.",
    "gold": 2,
    "images": [IMAGE],
    "source": "pets",
}


class Files:
    """The images beside the record's file, by path."""

    videos_cut = 0

    def __init__(self, **images: bytes) -> None:
        self._images = images

    def image(self, path: str) -> bytes:
        if path not in self._images:
            raise LookupError(f"there is no {path}")
        return self._images[path]

    def frames(self, folder: str, most: int) -> list[bytes]:
        return [self.image(folder)] * most


NO_FILES = Files()


def parse(max_images: int = 2, **changes: Any) -> Row:
    return parse_row({**RECORD, **changes}, max_images, NO_FILES)


def test_a_whole_record_becomes_a_row() -> None:
    assert parse() == Row("a", "What is this?", "A cat.", "A dog.", 2, (IMAGE,), "pets")


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"id": 7}, {"id": "7"}),
        ({"source": None}, {"source": ""}),
        ({"images": [base64.b64encode(IMAGE).decode()]}, {}),
        ({"images": ["data:image/png;base64," + base64.b64encode(IMAGE).decode()]}, {}),
        ({"images": [{"bytes": IMAGE, "path": "x.png"}]}, {}),
        ({"images": IMAGE}, {}),
        ({"images": f'["{base64.b64encode(IMAGE).decode()}"]'}, {}),
        ({"gold": "2"}, {"gold": 2}),
        ({"gold": 2.0}, {"gold": 2}),
        ({"gold": "2.0"}, {"gold": 2}),
        ({"images": [IMAGE, IMAGE]}, {"images": (IMAGE, IMAGE)}),
    ],
)
def test_usual_spellings_are_understood(changes: dict[str, Any], row: dict[str, Any]) -> None:
    expected = {name: getattr(parse(), name) for name in Row.__slots__} | row
    assert parse(**changes) == Row(**expected)


@pytest.mark.parametrize(
    ("changes", "reason", "named"),
    [
        ({"id": None}, BadReason.MISSING_FIELD, "id"),
        ({"id": True}, BadReason.WRONG_TYPE, "id"),
        ({"id": "x" * 2000}, BadReason.TEXT_TOO_LONG, "id"),
        ({"id": 10**2000}, BadReason.TEXT_TOO_LONG, "id"),
        ({"question": None}, BadReason.MISSING_FIELD, "question"),
        ({"question": 3}, BadReason.WRONG_TYPE, "question"),
        ({"question": "half a pair: \ud800"}, BadReason.WRONG_TYPE, "question"),
        ({"answer1": " \n"}, BadReason.EMPTY_TEXT, "answer1"),
        ({"answer2": "é" * 50_001}, BadReason.TEXT_TOO_LONG, "answer2"),
        ({"gold": None}, BadReason.MISSING_FIELD, "gold"),
        ({"gold": 0}, BadReason.WRONG_GOLD, "gold"),
        ({"gold": 3}, BadReason.WRONG_GOLD, "gold"),
        ({"gold": 1.5}, BadReason.WRONG_TYPE, "gold"),
        ({"gold": float("nan")}, BadReason.WRONG_TYPE, "gold"),
        ({"gold": True}, BadReason.WRONG_TYPE, "gold"),
        ({"gold": "A"}, BadReason.WRONG_TYPE, "gold is 'A', must be 1 or 2"),
        ({"images": 7}, BadReason.WRONG_TYPE, "images"),
        ({"images": "[7"}, BadReason.WRONG_TYPE, "images"),
        ({"images": []}, BadReason.NO_IMAGE, "images"),
        ({"images": [IMAGE] * 3}, BadReason.TOO_MANY_IMAGES, "imagesPerPrompt is 2"),
        ({"images": [None]}, BadReason.WRONG_TYPE, "images[0]"),
        ({"images": ["cat.png"]}, BadReason.IMAGE_MISSING, "cat.png"),
        ({"images": ["not base64!"]}, BadReason.IMAGE_INVALID, "images[0]"),
        ({"images": [IMAGE, b"GIF89a"]}, BadReason.IMAGE_INVALID, "images[1]"),
        ({"images": [IMAGE[:40]]}, BadReason.IMAGE_INVALID, "images[0]"),
        ({"source": 5}, BadReason.WRONG_TYPE, "source"),
    ],
)
def test_a_bad_record_has_a_named_reason(
    changes: dict[str, Any], reason: BadReason, named: str
) -> None:
    with pytest.raises(BadRecord) as error:
        parse(**changes)
    assert error.value.reason is reason
    assert named in error.value.detail


def test_a_field_that_is_not_there_is_told_by_those_that_are() -> None:
    with pytest.raises(BadRecord) as error:
        parse_row({"prompt": "a", "chosen": "b"}, 1, NO_FILES)
    assert error.value.detail == "id is missing; there are 'prompt, chosen'"
    with pytest.raises(BadRecord) as error:
        parse(question=None)
    assert error.value.detail == "question is null"


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = png(9_000, "1")
    assert len(bomb) < 100_000
    with pytest.raises(BadRecord) as error:
        parse(images=[bomb])
    assert (error.value.reason, "9000" in error.value.detail) == (BadReason.IMAGE_INVALID, True)


def test_a_relative_image_is_read_beside_its_file() -> None:
    beside = Files(**{"cats/1.png": IMAGE})
    for image in ("cats/1.png", {"bytes": None, "path": "cats/1.png"}):
        assert parse_row({**RECORD, "images": [image]}, 1, beside).images == (IMAGE,)


def test_a_video_becomes_as_many_frames_as_a_prompt_may_hold() -> None:
    row = parse_row({**RECORD, "images": Video("clip")}, 3, Files(clip=IMAGE))
    assert row.images == (IMAGE,) * 3


def test_a_row_of_an_evaluation_set_keeps_the_benchmarks_id_and_category() -> None:
    row = parse_set_row({**RECORD, "item": 7, "category": "safety"}, 2, NO_FILES)
    assert (row.id, row.item, row.category) == ("a", "7", "safety")
    assert parse_set_row(RECORD, 2, NO_FILES).item == "a"


def test_a_chain_of_ones_own_is_kept_when_its_verdict_is_right() -> None:
    response = "<think>It barks.</think><answer>2</answer>"
    row = parse_chain({**RECORD, "response": response + "\n"}, 1, NO_FILES)
    assert row == AnnotatedRow(
        "a", "What is this?", "A cat.", "A dog.", 2, (IMAGE,), "pets", response, 1, "", 0.0
    )


@pytest.mark.parametrize(
    "response",
    [
        "<think>It meows.</think><answer>1</answer>",
        "<think>It barks.</think> <answer>2</answer>",
        "<answer>2</answer>",
        "<think>.</think><answer>2</answer><answer>2</answer>",
    ],
)
def test_a_wrong_or_malformed_chain_is_a_bad_row(response: str) -> None:
    with pytest.raises(BadRecord) as error:
        parse_chain({**RECORD, "response": response}, 1, NO_FILES)
    assert error.value.reason is BadReason.WRONG_RESPONSE
