# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON: one byte string for one value, so that digests can be compared."""

import json
import math
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Serialises with sorted keys, no spaces, UTF-8, and whole floats as integers.

    A value that passed through the API server comes back with 1.0 as 1, so both
    must serialise alike.

    Args:
        value: dicts with string keys, lists, strings, numbers, booleans, None.

    Raises:
        ValueError: for NaN or infinity.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value
