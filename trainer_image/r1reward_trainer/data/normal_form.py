# SPDX-License-Identifier: Apache-2.0
"""Unicode's normal forms in a time that grows with the length of the text alone.

Marks on one letter are put into an order, which takes the square of their number: a text of
nothing else would hold up a whole stage.
"""

import re
import unicodedata
from functools import cache
from typing import Literal

MOST_MARKS = 30
"""On one letter: more than any language has (Unicode Standard Annex #15, section 13)."""
_LAST_MARK = 0x1E94A


def normalized(form: Literal["NFC", "NFKC"], text: str) -> str:
    """The text in a normal form, without the marks on a letter that come after MOST_MARKS."""
    if text.isascii():
        return text
    return unicodedata.normalize(form, _crowd().sub(lambda marks: marks[0][:MOST_MARKS], text))


def is_crowded(text: str) -> bool:
    """Whether a letter has more than MOST_MARKS marks."""
    return not text.isascii() and _crowd().search(text) is not None


@cache
def _crowd() -> re.Pattern[str]:
    marks = [chr(c) for c in range(0x300, _LAST_MARK + 1) if _is_mark(chr(c))]
    return re.compile(f"[{''.join(marks)}]{{{MOST_MARKS + 1},}}")


def _is_mark(character: str) -> bool:
    """Whether nothing but marks comes of it in any form."""
    return all(map(unicodedata.combining, unicodedata.normalize("NFKD", character)))
