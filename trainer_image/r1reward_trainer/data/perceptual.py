# SPDX-License-Identifier: Apache-2.0
"""What an image looks like, whatever its size and compression: a hash that finds candidates, and a
thumbnail that confirms them."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

from r1reward_trainer.images import to_rgb

LIKE = 20
"""Images whose hashes differ in at most so many of 128 bits are compared by their thumbnails. All
copies that tests/unit/data/pages.py makes were within, and so was every form filled in with other
words: the hash alone decides nothing."""
SIDE = 64
"""Of a thumbnail: SIDE² bytes for each image that is kept."""
_CORRELATED = 0.9
"""Of a copy's thumbnail at least; it tells apart what shows so little that _NOISE hides it."""
_TILE = 8
_DIFFERENT = 0.2
"""Mean square of the difference within a tile, in the variances of the two. The copies had at most
0.14 in their worst tile; of 19,900 pairs of forms 34, of 7,140 pairs of pages none had less than
this in theirs."""
_NOISE = 16.0
"""Variance, in grey values squared, that compression and scaling alone leave in a tile."""
_PLAIN = 0.5
"""Standard deviation of the grey values below which an image shows too little to be known by it."""
_LEAST = 1e-3
_HASHED_SIDE = 32

Thumbnails = npt.NDArray[np.uint8]
"""SIDE × SIDE grey values, or several of them: [n, SIDE, SIDE]."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What is kept of an image.

    Attributes:
        shape, steps: two hashes of 64 bits: the signs of the low frequencies (pHash) and of the
            differences between neighbours (dHash).
        thumbnail: [SIDE, SIDE], stretched to a square.
    """

    shape: int
    steps: int
    thumbnail: Thumbnails


def looks(data: bytes) -> Looks | None:
    """What an image looks like to a model: upright, over white; without its colours.

    Args:
        data: an image file that `load_image` takes.

    Returns:
        None for an image that shows next to nothing, such as a white page.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.draft("L", (2 * SIDE, 2 * SIDE))  # lets JPEG be decoded at a fraction of its size
        grey = to_rgb(image).convert("L")
    small = _reduced(grey, _HASHED_SIDE, _HASHED_SIDE).astype(np.float32)
    if small.std() < _PLAIN:
        return None
    frequencies = np.asarray(dctn(small, norm="ortho"))[:8, :8].ravel()
    signs = frequencies > np.median(frequencies[1:])
    signs[0] = False  # the brightness of the whole
    steps = _reduced(grey, 9, 8)
    return Looks(
        _number(signs),
        _number((steps[:, 1:] > steps[:, :-1]).ravel()),
        _reduced(grey, SIDE, SIDE),
    )


def likeness(one: Thumbnails, others: Thumbnails) -> npt.NDArray[np.float32]:
    """How far each of the others shows the same as the one.

    The whole must correlate, whatever its brightness and contrast; and no tile may differ by more
    than a copy does: forms and pages of text are alike but for a few words.

    Args:
        one: [SIDE, SIDE].
        others: [n, SIDE, SIDE].

    Returns:
        [n]: the correlation, 0 for another picture.
    """
    first, rest = one.astype(np.float32), others.astype(np.float32)
    first -= first.mean()
    flat = rest.reshape(len(rest), -1)
    means = flat.mean(1)
    variances = np.einsum("ij,ij->i", flat, flat) / SIDE**2 - means**2
    scales = max(first.std(), _LEAST) / np.sqrt(np.maximum(variances, _LEAST**2))
    correlation = flat @ first.ravel() * scales / max(first.var(), _LEAST**2) / SIDE**2
    found = np.flatnonzero(correlation >= _CORRELATED)
    for top in range(0, SIDE, _TILE):  # most that differ are known by their first lines
        band = slice(top, top + _TILE)
        scaled = (rest[found, band] - means[found, None, None]) * scales[found, None, None]
        mine, theirs = _tiles(first[np.newaxis, band]), _tiles(scaled)
        differing = ((mine - theirs) ** 2).mean(-1) / (mine.var(-1) + theirs.var(-1) + _NOISE)
        found = found[differing.max(-1) <= _DIFFERENT]
    same = np.zeros(len(others), dtype=np.float32)
    same[found] = np.minimum(correlation[found], 1)
    return same


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the file's header."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def _tiles(band: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[n, _TILE, SIDE] as [n, tiles, pixels of a tile]."""
    cut = band.reshape(-1, _TILE, SIDE // _TILE, _TILE).swapaxes(1, 2)
    return cut.reshape(len(band), SIDE // _TILE, _TILE * _TILE)


def _reduced(image: Image.Image, width: int, height: int) -> Thumbnails:
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))


def _number(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
