# SPDX-License-Identifier: Apache-2.0
"""How evaluate says in a stage's summary whether the job's gates were passed.

The summary travels with the manifest, so a cached evaluation says it too.
"""

from collections.abc import Mapping, Sequence

KEY = "gates"
"""In the summary; absent where no gates were set."""
_PASSED, _FAILED = "passed", "failed: "
_LIMIT = 253
"""Characters of a value of status.summary."""


def told(failures: Sequence[str]) -> str:
    """The value: what failed, or that all was passed."""
    return (_FAILED + "; ".join(failures))[:_LIMIT] if failures else _PASSED


def read(summary: Mapping[str, str]) -> tuple[bool, str] | None:
    """Whether the gates were passed, and what failed; None where nothing is said of gates."""
    text = summary.get(KEY)
    return None if text is None else (text == _PASSED, text.removeprefix(_FAILED))
