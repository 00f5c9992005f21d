# SPDX-License-Identifier: Apache-2.0
"""The teacher's mind: which of two digits an image shows, and how sure it is."""

import math
import random
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1reward_trainer.method.judge_prompt import judge_prompt
from tests.digits.rows import (
    QUESTION,
    WORDS,
    classifier,
    decode,
    digits,
    probabilities,
    shuffled,
    think,
)

CALIBRATION = 0.46
"""The temperature at which its choice between a row's answers is as sure as it is often right, on
images that it has not seen (temperature scaling, arXiv 1706.04599)."""

_SEED = 1234

_WORD = "|".join(WORDS)
_PROMPTS = (
    re.compile(rf"1:\s*({_WORD})\s+2:\s*({_WORD})\s*$"),
    re.compile(rf"\[Response 1\]:\s*({_WORD})\s+\[Response 2\]:\s*({_WORD})\s"),
)
"""The demo's, and the paper's, which jobs without a template of their own have."""
_JUDGE_START = judge_prompt("", 1).split("\n", 1)[0].partition("Response 1 is better")[0]
_JUDGED_VERDICT = re.compile(r"concludes that Response ([12]) is better")
_JUDGED_TEXT = re.compile(r"^(REASONING-[0-9a-f]{16})\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)
_CONCLUSION = re.compile(rf"({_WORD}), so ([12])")


@dataclass(frozen=True)
class Choice:
    """The two answers of a prompt."""

    answer1: str
    answer2: str


def read_prompt(text: str) -> Choice | None:
    """The answers of a preference prompt about digits, None for any other text."""
    found = next(filter(None, (prompt.search(text) for prompt in _PROMPTS)), None)
    return Choice(found[1], found[2]) if found and QUESTION in text else None


def seen() -> NDArray[np.int64]:
    """[10], the positions of the images that the teacher learned from: one of each digit, so that
    it errs and knows that it may."""
    order = shuffled(_SEED)
    return order[np.unique(digits().labels[order], return_index=True)[1]]


class DigitsTeacher:
    """Logistic regression that answers as a language model would."""

    def __init__(self) -> None:
        self._model = classifier(seen())

    def belief(self, image: bytes, choice: Choice, temperature: float = 1.0) -> float:
        """How likely it finds that the first answer is the right one, calibrated at 1."""
        first, second = WORDS.index(choice.answer1), WORDS.index(choice.answer2)
        believed = probabilities(self._model, decode(image)[None])[0]
        margin = math.log(believed[first] + 1e-9) - math.log(believed[second] + 1e-9)
        return (1 + math.tanh(margin / (2 * CALIBRATION * temperature))) / 2

    def answer(self, image: bytes, choice: Choice, temperature: float, seed: int) -> str:
        """A whole response.

        Args:
            image: an encoded image of a digit.
            choice: the two answers.
            temperature: 0 takes the likelier answer, 1 samples from what it believes.
            seed: of the sampling.
        """
        verdict = 1 if self._says_first(image, choice, temperature, seed) else 2
        word = choice.answer1 if verdict == 1 else choice.answer2
        return f"<think>{think(word, verdict)}</think><answer>{verdict}</answer>"

    def _says_first(self, image: bytes, choice: Choice, temperature: float, seed: int) -> bool:
        if temperature == 0:
            return self.belief(image, choice) >= 0.5
        return random.Random(seed).random() < self.belief(image, choice, temperature)


def judge(text: str) -> str | None:
    """What the consistency judge says to its prompt: 1 when the chain's conclusion names the
    verdict, else 0; None when the text is no such prompt."""
    if not text.startswith(_JUDGE_START):
        return None
    verdict = _JUDGED_VERDICT.search(text)
    chain = _JUDGED_TEXT.search(text)
    if verdict is None or chain is None:
        return None
    conclusion = _CONCLUSION.fullmatch(chain[2].strip())
    return "1" if conclusion is not None and conclusion[2] == verdict[1] else "0"
