# SPDX-License-Identifier: Apache-2.0
"""The judgements that are remembered, by the content of their question."""

import hashlib
from collections import OrderedDict

from r1reward_trainer.method.reward import JudgeOutcome

ENTRY_BYTES = 320
"""What one judgement takes at most, with its share of the table. Questions are kept as digests, so
their length does not matter."""


class JudgementCache:
    """Forgets what was not asked for longest.

    Args:
        max_bytes: of memory; less than ENTRY_BYTES remembers nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._entries: OrderedDict[bytes, JudgeOutcome] = OrderedDict()
        self._room = max_bytes // ENTRY_BYTES

    @property
    def bytes(self) -> int:
        """What is taken up, as counted against `max_bytes`."""
        return len(self._entries) * ENTRY_BYTES

    def get(self, question: str) -> JudgeOutcome | None:
        """What the judge said to this question."""
        key = _key(question)
        outcome = self._entries.get(key)
        if outcome is not None:
            self._entries.move_to_end(key)
        return outcome

    def put(self, question: str, outcome: JudgeOutcome) -> None:
        """Remembers what the judge said."""
        self._entries[_key(question)] = outcome
        if len(self._entries) > self._room:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()


def _key(question: str) -> bytes:
    return hashlib.sha256(question.encode()).digest()
