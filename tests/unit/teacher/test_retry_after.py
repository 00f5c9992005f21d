# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

import pytest

from r1reward_trainer.retry_after import retry_after

NOW = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0),
    ],
)
def test_seconds_and_dates_are_read(header: str, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds


@pytest.mark.parametrize(
    "header", [None, "", "-1", "nan", "inf", "soon", "Wed, 41 Oct 2026 07:28:00 GMT", "\0" * 99]
)
def test_what_cannot_be_read_is_left_aside(header: str | None) -> None:
    assert retry_after(header, NOW) is None
