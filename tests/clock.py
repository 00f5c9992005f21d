# SPDX-License-Identifier: Apache-2.0
"""A clock that stands still until it is told to go on, and one that jumps."""

from datetime import UTC, datetime, timedelta

from r1reward_operator.kube.clock import SystemClock

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeClock:
    """Both times of `kube.clock.Clock`, moved by hand."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = 0.0

    def now(self) -> datetime:
        """The start and what has passed since."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """What has passed since the start, in seconds."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Lets time pass; also serves as a sleep that takes no time."""
        self._elapsed += seconds


class ShiftedClock(SystemClock):
    """The machine's clocks, and what was skipped: for threads that must not stand still."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> datetime:
        """The wall-clock time with what was skipped."""
        return super().now() + timedelta(seconds=self._skipped)

    def monotonic(self) -> float:
        """Seconds since boot with what was skipped."""
        return super().monotonic() + self._skipped

    def advance(self, seconds: float) -> None:
        """Skips some time."""
        self._skipped += seconds
