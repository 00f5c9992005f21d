# SPDX-License-Identifier: Apache-2.0
"""Progress of a stage: computed here, pushed to the operator from a thread of its own.

A report is sent at every percent or every 30 s, whichever comes first. Reporting
never holds up and never fails a stage: what cannot be sent is replaced by the next.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx

from r1reward_api.wire.progress import MESSAGE_CHARACTERS, Progress

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 30.0
SEND_TIMEOUT_SECONDS = 5.0
_RATE_MEMORY = 0.9
"""Weight of the past in the moving average of the rate."""


class ProgressReporter:
    """Reports one stage's progress. Thread-safe; `update` never blocks.

    Args:
        stage, attempt: whose progress this is.
        url: where to POST; None: reports go to the log only.
        token_file: file with the bearer token, read for each report since it is rotated.
        ca_file: CA of the operator's certificate.
    """

    def __init__(
        self,
        stage: str,
        attempt: int,
        url: str | None,
        token_file: Path,
        ca_file: Path | None = None,
    ) -> None:
        self._stage = stage
        self._attempt = attempt
        self._url = url
        self._token_file = token_file
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = False
        self._step = 0
        self._total = 0
        self._metrics: dict[str, float] = {}
        self._message: str | None = None
        self._waiting_for: str | None = None
        self._checkpoint: tuple[int, str] | None = None
        self._seconds_per_step: float | None = None
        self._last: tuple[float, int] | None = None
        self._sent_percent = -1
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def update(
        self,
        step: int | None = None,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
        message: str | None = None,
    ) -> None:
        """Notes the state; what is absent stays as it was. Metrics that are not finite are
        left out."""
        now = time.monotonic()
        with self._lock:
            if total is not None:
                self._total = total
            if step is not None:
                self._note_rate(now, step)
                self._step = step
            if metrics is not None:
                self._metrics = {k: float(v) for k, v in metrics.items() if math.isfinite(v)}
            if message is not None:
                self._message = message
            percent = self._percent()
            due = percent > self._sent_percent or message is not None
        if due:
            self._changed.set()

    def waiting_for(self, fault: str | None) -> None:
        """Notes what does not work and is tried again; None: it works."""
        with self._lock:
            changed = fault != self._waiting_for
            self._waiting_for = fault
        if changed:
            self._changed.set()

    def checkpoint(self, step: int, uri: str) -> None:
        """Notes the last committed checkpoint."""
        with self._lock:
            self._checkpoint = (step, uri)
        self._changed.set()

    def close(self) -> None:
        """Sends the last report and ends the thread, within the send timeout."""
        with self._lock:
            self._closed = True
        self._changed.set()
        self._thread.join(SEND_TIMEOUT_SECONDS * 2)

    def _note_rate(self, now: float, step: int) -> None:
        if self._last is not None and step > self._last[1]:
            seconds = (now - self._last[0]) / (step - self._last[1])
            if self._seconds_per_step is None:
                self._seconds_per_step = seconds
            else:
                kept = _RATE_MEMORY * self._seconds_per_step
                self._seconds_per_step = kept + (1 - _RATE_MEMORY) * seconds
        if self._last is None or step != self._last[1]:
            self._last = (now, step)

    def _percent(self) -> int:
        return min(100, 100 * self._step // self._total) if self._total else 0

    def _snapshot(self) -> Progress:
        with self._lock:
            self._sent_percent = self._percent()
            eta = None
            if self._seconds_per_step is not None and self._total:
                eta = round(self._seconds_per_step * max(0, self._total - self._step))
            return Progress(
                stage=self._stage,
                attempt=self._attempt,
                step=self._step,
                total_steps=self._total,
                percent=self._sent_percent,
                eta_seconds=eta,
                metrics=self._metrics,
                message=_cut(self._message),
                waiting_for=_cut(self._waiting_for),
                checkpoint_step=self._checkpoint[0] if self._checkpoint else None,
                checkpoint_uri=self._checkpoint[1] if self._checkpoint else None,
                heartbeat=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            )

    def _run(self) -> None:
        while True:
            self._changed.wait(INTERVAL_SECONDS)
            self._changed.clear()
            with self._lock:
                closed = self._closed
            try:
                self._send(self._snapshot())
            except Exception as error:  # without this thread the stage would look hung
                logger.warning("progress: %s: %s", type(error).__name__, error)
            if closed:
                return
            # At most one report a second or so, and not all pods at the same moment.
            time.sleep(1.0 + random.random() / 2)

    def _send(self, progress: Progress) -> None:
        logger.info(
            "%s %d/%d (%d %%)%s",
            progress.stage,
            progress.step,
            progress.total_steps,
            progress.percent,
            f" {progress.message}" if progress.message else "",
        )
        if self._url is None:
            return
        try:
            response = httpx.post(
                self._url,
                json=progress.to_wire(),
                headers={"Authorization": f"Bearer {self._token_file.read_text().strip()}"},
                timeout=SEND_TIMEOUT_SECONDS,
                verify=str(self._ca_file) if self._ca_file else True,
            )
            if response.status_code >= 300:
                logger.debug("progress was refused: HTTP %d", response.status_code)
        except (httpx.HTTPError, OSError) as error:
            logger.debug("progress was not sent: %s", error)


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:MESSAGE_CHARACTERS]
