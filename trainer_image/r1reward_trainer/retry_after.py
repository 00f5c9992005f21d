# SPDX-License-Identifier: Apache-2.0
"""The Retry-After header of HTTP (RFC 9110, section 10.2.3)."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait; None without a header that can be read.

    Args:
        header: seconds or a date.
        now: the present, for a date; a date in the past means 0.
    """
    text = (header or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text, now or datetime.now(UTC))
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return None
    return seconds


def _until(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000": a date of unknown zone is taken for UTC
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
