# SPDX-License-Identifier: Apache-2.0
"""Pages, forms, charts, drawings and scenes, each the same for the same number, and copies of them:
what telling copies of images apart from look-alikes is measured with."""

from collections.abc import Callable, Mapping
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tests.unit.data.images import encoded

_RANDOM = Random(0)
_WORDS = ["".join(_RANDOM.choices("aeinorstlu", k=_RANDOM.randint(2, 8))) for _ in range(200)]
_FONTS = {size: ImageFont.load_default(size) for size in (14, 18, 24)}

Made = Callable[[int], Image.Image]


def _paper(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), "white")
    return image, ImageDraw.Draw(image)


def _line(random: Random, width: int) -> str:
    line = ""
    while _FONTS[18].getlength(line) < width:
        line += random.choice(_WORDS) + " "
    return line


def text(number: int) -> Image.Image:
    """A full page of text in even lines: no two differ but in their words."""
    random, (image, draw) = Random(number), _paper(600, 800)
    for y in range(40, 760, 27):
        draw.text((40, y), _line(random, 440), fill="black", font=_FONTS[18])
    return image


def form(number: int) -> Image.Image:
    """One form, filled in with another word and number in each of ten fields."""
    random, (image, draw) = Random(number), _paper(640, 480)
    draw.rectangle((0, 0, 640, 50), fill=(40, 80, 160))
    draw.text((20, 12), "Monthly account statement", fill="white", font=_FONTS[24])
    for row in range(10):
        y, value = 70 + 38 * row, f"{random.choice(_WORDS)} {random.randrange(10**6)}"
        draw.text((20, y), f"Field number {row}", fill="black", font=_FONTS[18])
        draw.rectangle((240, y - 4, 600, y + 26), outline="grey")
        draw.text((250, y), value, fill="black", font=_FONTS[18])
    return image


def chart(number: int) -> Image.Image:
    """Eight bars over the same years."""
    random, (image, draw) = Random(number), _paper(640, 480)
    draw.line((60, 20, 60, 420, 620, 420), fill="black", width=2)
    for bar in range(8):
        x, height = 80 + 66 * bar, random.randrange(50, 390)
        draw.rectangle((x, 420 - height, x + 40, 419), fill=(70, 110, 180))
        draw.text((x, 430), str(2010 + bar), fill="black", font=_FONTS[14])
    return image


def drawing(number: int) -> Image.Image:
    """A polygon in thin lines with letters at its corners."""
    random, (image, draw) = Random(number), _paper(800, 600)
    corners = [(random.randrange(60, 740), random.randrange(60, 540)) for _ in range(5)]
    draw.line([*corners, corners[0]], fill="black", width=random.choice((1, 2)))
    for corner, letter in zip(corners, "ABCDE", strict=True):
        draw.text(corner, letter, fill="black", font=_FONTS[18])
    return image


def pale(number: int) -> Image.Image:
    """Such a drawing in light grey."""
    return Image.blend(Image.new("RGB", (800, 600), "white"), drawing(number), 0.3)


def scene(number: int) -> Image.Image:
    """Coloured noise at all scales, as photographs have it."""
    random, width, height = np.random.default_rng(number), 640, 480
    sum_ = np.zeros((height, width, 3))
    for scale in (2**power for power in range(1, 8)):
        noise = random.normal(0, 1, (max(2, 3 * scale // 4), scale, 3)).astype(np.float32)
        layers = [Image.fromarray(noise[..., channel]) for channel in range(3)]
        large = [layer.resize((width, height), Image.Resampling.BICUBIC) for layer in layers]
        sum_ += np.stack([np.asarray(layer) for layer in large], axis=-1) / scale**0.8
    values = (sum_ - sum_.mean()) / sum_.std() * 50 + 120
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


KINDS: Mapping[str, Made] = {
    made.__name__: made for made in (text, form, chart, drawing, pale, scene)
}


def cropped(image: Image.Image, share: float, corner: bool = False) -> bytes:
    """Without so much of its width and height, half at either side or all at one corner."""
    width, height = image.size
    x, y = width * share, height * share
    box = (0, 0, width - x, height - y) if corner else (x / 2, y / 2, width - x / 2, height - y / 2)
    kept = image.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))
    return encoded(kept, "JPEG", quality=85)


def copies(image: Image.Image) -> dict[str, bytes]:
    """The image in other encodings and sizes, with its whole frame."""
    width, height = image.size
    return {
        "JPEG 50": encoded(image, "JPEG", quality=50),
        "JPEG 20": encoded(image, "JPEG", quality=20),
        "half": encoded(image.resize((width // 2, height // 2))),
        "quarter": encoded(image.resize((width // 4, height // 4))),
        "double, WebP 70": encoded(image.resize((2 * width, 2 * height)), "WEBP", quality=70),
        "stretched": encoded(image.resize((width, height * 17 // 20)), "JPEG", quality=80),
        "grey": encoded(image.convert("L")),
    }
