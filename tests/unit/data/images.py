# SPDX-License-Identifier: Apache-2.0
"""Images that tests can tell apart."""

import io
from typing import Any

import numpy as np
from PIL import Image


def photo(number: int, width: int = 96, height: int = 64) -> Image.Image:
    """A smooth random picture, the same for the same number."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **settings: Any) -> bytes:
    """The image as a file; the settings are Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def png(number: int) -> bytes:
    """A photo as a PNG file."""
    return encoded(photo(number))
