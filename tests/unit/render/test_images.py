# SPDX-License-Identifier: Apache-2.0
"""Image files become the same pixels for the trainer and for the servers, or are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from vllm.multimodal.media.image import ImageMediaIO

from r1reward_trainer.images import MAX_PIXELS, InvalidImage, load_image


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width, height):
    """A few bytes that say they are a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def with_damaged_exif():
    """An orientation, and beside it a tag whose type does not fit its value."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0128] = 6, 2
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue().replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x07")


def rotated():
    image = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def transparent(mode):
    image = Image.linear_gradient("L").resize((30, 20)).convert(mode)
    image.putalpha(Image.linear_gradient("L").resize((30, 20)).rotate(90))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "PNG"), ("L", "PNG"), ("RGB", "JPEG"), ("L", "JPEG")]
)
def test_a_plain_png_or_jpeg_is_sent_as_it_is(picture, mode, kind):
    data = picture(mode=mode, kind=kind)
    image, sent = load_image(data)
    assert sent is data
    assert (image.mode, image.size) == ("RGB", (60, 40))


def server_view(data):
    """The pixels that a rollout server makes of a file."""
    return np.asarray(ImageMediaIO().load_bytes(data).media)


@pytest.mark.parametrize(
    "case",
    ["RGB", "L", "P", "1", "CMYK", "I;16", "RGBA", "LA", "rotated", "webp", "tiny", "sliver"],
)
def test_a_server_sees_the_very_pixels_that_the_trainer_processes(picture, case):
    data = {
        "RGB": lambda: picture(),
        "L": lambda: picture(mode="L"),
        "P": lambda: picture(mode="P"),
        "1": lambda: picture(mode="1"),
        "CMYK": lambda: picture(mode="CMYK", kind="JPEG"),
        "I;16": lambda: picture(mode="I;16"),
        "RGBA": lambda: transparent("RGB"),
        "LA": lambda: transparent("L"),
        "rotated": rotated,
        "webp": lambda: picture(kind="WEBP"),
        "tiny": lambda: picture(size=(1, 1)),
        "sliver": lambda: picture(size=(1000, 2)),
    }[case]()
    image, sent = load_image(data)
    assert sent.startswith((b"\x89PNG", b"\xff\xd8\xff"))
    assert np.array_equal(np.asarray(image), server_view(sent))


def test_an_image_is_turned_upright():
    image, _ = load_image(rotated())
    assert image.size == (40, 60)


def test_transparency_is_over_white():
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(buffer, "PNG")
    image, _ = load_image(buffer.getvalue())
    assert image.getpixel((3, 3)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_cut():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0x8000, dtype=np.uint16)).save(buffer, "PNG")
    image, _ = load_image(buffer.getvalue())
    assert image.getpixel((3, 3)) == (128, 128, 128)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 200), (500, 1), (2, 1000)])
def test_images_of_a_pixel_or_a_line_can_be_rendered(renderer, picture, size):
    prompt = renderer.prompt("q", "a", "b", [picture(size=size)])
    assert int(prompt.image_grid_thw.prod()) * 14 * 14 >= 3136


def test_a_gigapixel_claim_is_refused_before_decoding():
    with pytest.raises(InvalidImage, match=f"more than {MAX_PIXELS}"):
        load_image(png_claiming(9000, 9000))
    with pytest.raises(InvalidImage):
        load_image(png_claiming(60_000, 60_000))


def test_a_line_that_would_become_gigapixels_is_refused(picture):
    with pytest.raises(InvalidImage, match="more than"):
        load_image(png_claiming(1, 2_000_000))


@pytest.mark.parametrize(
    "damage",
    [
        lambda png: b"",
        lambda png: b"not an image",
        lambda png: png[:40],
        lambda png: png[: len(png) // 2],
        lambda png: b"GIF89a" + png,
        lambda png: with_damaged_exif(),
    ],
)
def test_what_is_no_whole_image_is_refused(picture, damage):
    with pytest.raises(InvalidImage):
        load_image(damage(picture()))
