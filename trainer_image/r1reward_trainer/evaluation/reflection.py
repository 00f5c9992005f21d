# SPDX-License-Identifier: Apache-2.0
"""Phrases in which a response goes back on itself, which the paper calls its aha moments."""

import re

_PHRASES = re.compile(
    r"\b(?:wait\b|hold on\b|on second thought|upon (?:closer|further|second)|"
    r"(?:let me|let's|i should|i need to|i will) (?:re-?\w+|double[- ]check|check again|"
    r"think again|look again)|re-?examin\w+|reconsider\w*|looking (?:again|more closely)|"
    r"i was wrong|i made a mistake|correction:|actually,)",
    re.IGNORECASE,
)


def reflections(response: str) -> int:
    """How many such phrases there are. A count of words: it says how a model writes, not
    whether its second thought was right."""
    return len(_PHRASES.findall(response))
