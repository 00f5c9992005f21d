# SPDX-License-Identifier: Apache-2.0
from functools import cache

import numpy as np
import pytest
from PIL import Image

from r1reward_trainer.data.perceptual import LIKE, likeness, looks
from r1reward_trainer.data.pictures import Pictures
from tests.unit.data.images import encoded, photo, png
from tests.unit.data.pages import KINDS, copies, cropped

KNOWN = 8


@cache
def known(kind: str) -> Pictures:
    """So many images of a kind, each row about one."""
    pictures = Pictures()
    for number in range(KNOWN):
        pictures.add(encoded(KINDS[kind](number)), number)
    return pictures


def found(pictures: Pictures, image: bytes) -> list[int]:
    return [row for row, _ in pictures.like(image)]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_it_shows_an_image_is_known_in_other_sizes_and_compressions(kind: str) -> None:
    for number in (0, 5):
        for name, copy in copies(KINDS[kind](number)).items():
            assert found(known(kind), copy) == [number], name


@pytest.mark.parametrize("kind", KINDS)
def test_other_images_of_a_kind_are_no_copies(kind: str) -> None:
    others = [encoded(KINDS[kind](number)) for number in range(100, 108)]
    assert [found(known(kind), other) for other in others] == [[]] * len(others)


def test_forms_are_told_apart_by_their_pixels_where_the_hash_takes_each_for_the_others() -> None:
    one, other = looks(encoded(KINDS["form"](0))), looks(encoded(KINDS["form"](1)))
    assert one is not None
    assert other is not None
    assert (one.shape ^ other.shape).bit_count() + (one.steps ^ other.steps).bit_count() <= LIKE
    assert likeness(one.thumbnail, other.thumbnail[np.newaxis]).tolist() == [0]


@pytest.mark.parametrize(
    ("kind", "share", "corner", "is_known"),
    [
        ("scene", 0.01, False, True),
        ("scene", 0.01, True, True),
        ("scene", 0.05, False, False),
        ("scene", 0.03, True, False),
        ("form", 0.005, False, True),
        ("form", 0.02, False, False),
        ("drawing", 0.01, False, True),
        ("drawing", 0.03, False, False),
        ("text", 0.01, False, False),
        ("chart", 0.01, False, False),
    ],
)
def test_of_crops_those_are_known_that_the_documentation_says(
    kind: str, share: float, corner: bool, is_known: bool
) -> None:
    for number in (0, 5):
        crop = cropped(KINDS[kind](number), share, corner)
        assert found(known(kind), crop) == ([number] if is_known else [])


def test_another_brightness_and_contrast_hide_nothing() -> None:
    image = KINDS["chart"](3)
    faded = Image.blend(Image.new("RGB", image.size, "grey"), image, 0.6)
    assert found(known("chart"), encoded(faded)) == [3]


def test_an_image_is_known_as_a_model_sees_it_upright_and_over_white() -> None:
    shape = Image.new("L", (64, 48), 0)
    shape.paste(255, (6, 8, 30, 20))
    shape.paste(255, (40, 4, 50, 44))
    transparent = Image.new("RGBA", shape.size, (0, 0, 0, 0))
    transparent.putalpha(shape)
    flat = Image.new("RGB", shape.size, "white")
    flat.paste("black", mask=shape)
    turned = Image.Exif()
    turned[0x0112] = 6
    lying = encoded(photo(1).rotate(90, expand=True), "JPEG", quality=90, exif=turned)
    pictures = Pictures()
    pictures.add(encoded(transparent), 0)
    pictures.add(lying, 1)
    assert found(pictures, encoded(flat, "JPEG", quality=90)) == [0]
    assert found(pictures, encoded(photo(1))) == [1]


def test_an_image_that_shows_nothing_is_known_by_its_bytes_alone() -> None:
    white = Image.new("RGB", (64, 64), "white")
    noise = np.random.default_rng(0).integers(254, 256, (64, 64), dtype=np.uint8)
    pictures = Pictures()
    pictures.add(encoded(white), 7)
    assert looks(encoded(Image.fromarray(noise))) is None
    assert pictures.like(encoded(white)) == [(7, 1.0)]
    assert pictures.like(encoded(white, compress_level=0)) == []


def test_all_rows_about_an_image_are_found_and_nothing_among_no_images() -> None:
    pictures = Pictures()
    assert pictures.like(png(0)) == []
    for row in range(3):
        pictures.add(png(0), row)
    assert pictures.like(png(0)) != [], "added after it was asked for"
    assert found(pictures, png(0)) == [0, 1, 2]
    assert found(pictures, encoded(photo(0), "JPEG", quality=50)) == [0, 1, 2]
