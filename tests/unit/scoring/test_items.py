# SPDX-License-Identifier: Apache-2.0
import base64
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1reward_trainer.scoring.files import InputFile, beside, records
from r1reward_trainer.scoring.items import BadItem, parse_item

IMAGE = b"\x89PNG as far as anybody looks here"
TEXT = base64.b64encode(IMAGE).decode()
PAIR = {"question": "q", "answer1": "a", "answer2": "b"}


def read(path: str) -> bytes:
    if path != "cats/1.png":
        raise LookupError(f"there is no {path}")
    return IMAGE


def images(given: Any) -> tuple[bytes, ...]:
    return parse_item({**PAIR, "images": given}, "place", read).request.files


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        TEXT,
        f"data:image/png;base64,{TEXT}",
        "cats/1.png",
        {"bytes": IMAGE, "path": None},
        {"bytes": IMAGE, "path": "elsewhere.png"},
        {"bytes": None, "path": "cats/1.png"},
        {"path": "cats/1.png"},
    ],
)
def test_one_image_and_a_list_are_understood_in_every_spelling(image: Any):
    assert images(image) == images([image]) == (IMAGE,)
    assert images([image, image]) == (IMAGE, IMAGE)


def test_a_list_in_a_cell_is_understood():
    assert images(f'["cats/1.png", "{TEXT}"]') == (IMAGE, IMAGE)


@pytest.mark.parametrize("given", [None, [], "[]"])
def test_a_row_may_have_no_images(given: Any):
    assert images(given) == ()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (7, "images is int, must be a list"),
        ('["cats/1.png"', "images is no JSON list"),
        ([TEXT, None], r"images\[1\] is NoneType, must be bytes, base64 or a path"),
        ([{"bytes": None, "path": None}], r"images\[0\] is NoneType"),
        ([TEXT, "dogs/1.png"], r"images\[1\]: there is no dogs/1.png"),
        ("not base64!", r"images\[0\] is neither base64 nor a file name"),
    ],
)
def test_what_is_no_image_is_named(given: Any, named: str):
    with pytest.raises(BadItem, match=f"^{named}"):
        images(given)


def read_back(path: Path) -> list[tuple[bytes, ...]]:
    """The images of a file's rows, those that lie beside it among them."""
    scratch = path.parent / "scratch"
    scratch.mkdir()
    file = InputFile(str(path), "1")
    found: list[tuple[bytes, ...]] = []
    for row in records(file, scratch):
        assert isinstance(row, dict)
        found.append(parse_item(row, "place", beside(file).image).request.files)
    return found


def test_images_of_a_csv_file_are_read_beside_it(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(IMAGE)
    (tmp_path / "in.csv").write_text(
        "question,answer1,answer2,images\n"
        "q,a,b,x.png\n"
        'q,a,b,"[""x.png"", ""x.png""]"\n'
        f"q,a,b,{TEXT}\n"
        "q,a,b,\n"
    )
    assert read_back(tmp_path / "in.csv") == [(IMAGE,), (IMAGE, IMAGE), (IMAGE,), ()]


@pytest.mark.parametrize(
    "column",
    [IMAGE, [IMAGE], {"bytes": IMAGE, "path": "x.png"}, [{"bytes": None, "path": "x.png"}]],
)
def test_images_of_a_parquet_file_are_read_as_datasets_store_them(tmp_path: Path, column: Any):
    (tmp_path / "x.png").write_bytes(IMAGE)
    pq.write_table(pa.Table.from_pylist([{**PAIR, "images": column}]), tmp_path / "in.parquet")
    assert read_back(tmp_path / "in.parquet") == [(IMAGE,)]
