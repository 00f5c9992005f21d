# SPDX-License-Identifier: Apache-2.0
"""What a container that left no termination message of ours wrote last."""

from collections.abc import Mapping
from typing import Any

from r1reward_api.wire.termination import Termination

_CHARACTERS = 500
_RULES = " =-\t"


def last_words(end: Mapping[str, Any]) -> str:
    """The last whole lines of its log, without the rules under titles.

    Args:
        end: its terminated state. A termination message of ours is no log: empty.
    """
    written = end.get("message") or ""
    if Termination.decode(written) is not None:
        return ""
    said = "\n".join(line.rstrip() for line in written.splitlines() if line.strip(_RULES))
    if len(said) > _CHARACTERS:
        tail = said[-_CHARACTERS:]
        said = tail.partition("\n")[2] or tail
    return said
