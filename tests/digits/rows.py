# SPDX-License-Identifier: Apache-2.0
"""The digits as preference rows."""

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from r1reward_trainer.data.rows import Row

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUESTION = "Which digit is it?"
TEMPLATE = "{question} 1:{answer1} 2:{answer2}"
ROWS_PER_IMAGE = 4
LIKELY_DISTRACTORS = 2
"""Of an image's rows, how many have a wrong answer that a weak classifier finds likely."""
SIDE = 56
"""Pixels: 4 × 4 patches, so 4 tokens an image."""

_SCALE = SIDE // 8
_WHITE = 16
_WEAK_IMAGES = 100


@dataclass(frozen=True)
class Digits:
    """All images.

    Attributes:
        pixels: [images, 64] float64, 0 … 16.
        labels: [images] int64, 0 … 9.
    """

    pixels: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@cache
def digits() -> Digits:
    """The data set as scikit-learn ships it."""
    bunch: Any = load_digits()
    return Digits(np.asarray(bunch.data, np.float64), np.asarray(bunch.target, np.int64))


def encode(pixels: NDArray[np.float64]) -> bytes:
    """One image, [64], as a grey PNG of SIDE × SIDE."""
    small = np.round(pixels.reshape(8, 8) * (255 / _WHITE)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def decode(png: bytes) -> NDArray[np.float64]:
    """[64] pixels out of a file of `encode`, whatever its size since then."""
    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("L").resize((8, 8), Image.Resampling.BOX)
    return np.asarray(small, np.float64).reshape(64) * (_WHITE / 255)


def shuffled(seed: int) -> NDArray[np.int64]:
    """[images], the position of every image, in an order of the seed."""
    return np.random.default_rng(seed).permutation(len(digits()))


def classifier(seen: NDArray[np.int64]) -> LogisticRegression:
    """Logistic regression on the images at these positions."""
    data = digits()
    model = LogisticRegression(max_iter=2000)
    return model.fit(data.pixels[seen] / _WHITE, data.labels[seen])


def probabilities(model: LogisticRegression, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """[images, 10] for [images, 64], whatever digits the model was fitted on."""
    full = np.zeros((len(pixels), 10))
    full[:, model.classes_] = model.predict_proba(pixels / _WHITE)
    return full


def preference_rows(seed: int = 0) -> list[Row]:
    """ROWS_PER_IMAGE rows for every image; either answer is the right one equally often."""
    data = digits()
    generator = np.random.default_rng(seed)
    likely = probabilities(classifier(shuffled(seed + 1)[:_WEAK_IMAGES]), data.pixels)
    rows = []
    for index in range(len(data)):
        right = int(data.labels[index])
        image = encode(data.pixels[index])
        wrong = [int(d) for d in np.argsort(-likely[index]) if d != right]
        rest = generator.permutation(wrong[LIKELY_DISTRACTORS:])
        distractors = [*wrong[:LIKELY_DISTRACTORS], *map(int, rest)][:ROWS_PER_IMAGE]
        golds = generator.permutation([1, 2] * (ROWS_PER_IMAGE // 2))
        for number, (distractor, gold) in enumerate(zip(distractors, golds, strict=True)):
            answers = (WORDS[right], WORDS[distractor])
            rows.append(
                Row(
                    id=f"digit-{index:04d}-{number}",
                    question=QUESTION,
                    answer1=answers[0 if gold == 1 else 1],
                    answer2=answers[1 if gold == 1 else 0],
                    gold=int(gold),
                    images=(image,),
                    source="sklearn-digits",
                )
            )
    return rows


def think(word: str, verdict: int) -> str:
    """The chain of thought: what is seen, and what follows, so that a judge can check it."""
    return f"{word}, so {verdict}"
