# SPDX-License-Identifier: Apache-2.0
"""Texts as sets of hashed word sequences, by which copies are found."""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from r1reward_trainer.data.normal_form import normalized

Hashes = npt.NDArray[np.uint64]

WORDS = 8
"""Words of a shingle: long enough that two texts hardly share one by chance."""
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{_IDEOGRAPHS}]|[^\\W{_IDEOGRAPHS}]+")
"""A word, or one sign of a script that sets no spaces between words."""
_FACTOR = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def shingles(texts: Iterable[str]) -> Hashes:
    """The hashes of all sequences of WORDS words within each text, sorted, each once."""
    found = [_of_one(text) for text in texts]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *found]))


def _of_one(text: str) -> Hashes:
    words = np.array([_word_hash(w) for w in _WORD.findall(_plain(text))], dtype=np.uint64)
    places = len(words) - WORDS + 1
    if places < 1:
        return np.empty(0, np.uint64)
    sums = np.zeros(places, dtype=np.uint64)
    for offset in range(WORDS):  # a polynomial in the words' hashes, modulo 2^64
        sums = sums * np.uint64(_FACTOR) + words[offset : offset + places]
    for factor in _MIX:  # so that the smallest hashes are a random sample
        sums = (sums ^ (sums >> np.uint64(31))) * np.uint64(factor)
    return sums


def _plain(text: str) -> str:
    """The same for all forms in which Unicode can write the same text."""
    return normalized("NFKC", text).casefold()


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
