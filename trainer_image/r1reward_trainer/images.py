# SPDX-License-Identifier: Apache-2.0
"""Untrusted image files made safe, and alike for the trainer's and the servers' processors.

Both sides must see the same pixels. Whatever Pillow and a server could read
differently (transparency, orientation, palettes, 16 bits, sides that the
processor refuses) is settled here, and the result is what both get.
"""

import io
import math

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: a few kilobytes can hold gigapixels."""
MAX_RATIO = 150
"""Long to short side; the image processor refuses 200 and more."""
MIN_SIDE = 4
"""Pixels; a side of 1 or 3 is taken for colour channels by array-based processors."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_SENT_AS_IS = ("PNG", "JPEG")
_ORIENTATION = 0x0112


class InvalidImage(ValueError):
    """The bytes are no image that can be used; the message says why."""


def load_image(data: bytes) -> tuple[Image.Image, bytes]:
    """Decodes an image file.

    Args:
        data: a PNG, JPEG or WebP file.

    Returns:
        The RGB image, and the same pixels as a PNG or JPEG file: `data` itself where it can be.

    Raises:
        InvalidImage: when it is damaged, of another format, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            _check_size(*opened.size)
            plain = _is_plain(opened)
            image = to_rgb(opened)
    except UnidentifiedImageError as error:
        raise InvalidImage(
            f"{len(data)} bytes beginning with {data[:8]!r} are no PNG, JPEG or WebP file"
        ) from error
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever a file's damage leads to
        raise InvalidImage(f"the image cannot be decoded: {error}") from error
    size = _usable_size(*image.size)
    if size != image.size:
        return _with_file(image.resize(size, Image.Resampling.BICUBIC))
    return (image, data) if plain else _with_file(image)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InvalidImage(
            f"the image has {width} × {height} pixels, more than {MAX_PIXELS}: reduce it"
        )


def _is_plain(image: Image.Image) -> bool:
    """Whether every reader takes the file as the same RGB pixels."""
    return (
        image.format in _SENT_AS_IS
        and image.mode in ("RGB", "L")
        and "transparency" not in image.info
        and image.getexif().get(_ORIENTATION, 1) == 1
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright, transparency over white, three channels of 8 bits."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow would cut instead of scale
        upright = upright.point(lambda value: value / 256).convert("L")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return upright.convert("RGB")


def _usable_size(width: int, height: int) -> tuple[int, int]:
    """The size with sides and their ratio within what image processors take."""
    scale = max(1.0, MIN_SIDE / min(width, height))
    width, height = round(width * scale), round(height * scale)
    shortest = math.ceil(max(width, height) / MAX_RATIO)
    width, height = max(width, shortest), max(height, shortest)
    _check_size(width, height)
    return width, height


def _with_file(image: Image.Image) -> tuple[Image.Image, bytes]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return image, buffer.getvalue()
