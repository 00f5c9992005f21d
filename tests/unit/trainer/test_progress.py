# SPDX-License-Identifier: Apache-2.0
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from r1reward_trainer.progress import ProgressReporter
from tests.e2e.waiting import wait_for

DEADLINE = 30.0


@pytest.fixture
def reports() -> Iterator[tuple[str, "Queue[dict[str, Any]]"]]:
    """An endpoint and what it was told."""
    told: Queue[dict[str, Any]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()


def test_reports_go_on_after_a_message_of_any_length(
    reports: tuple[str, "Queue[dict[str, Any]]"], tmp_path: Path
):
    url, told = reports
    token = tmp_path / "token"
    token.write_text("token")
    reporter = ProgressReporter("prepare", 1, url, token)
    reporter.update(message="staging " + 600 * "x")
    assert told.get(timeout=DEADLINE)["message"].startswith("staging xxx")
    reporter.update(step=1, total=2)
    assert told.get(timeout=DEADLINE)["percent"] == 50
    reporter.close()


def test_a_report_that_cannot_be_made_is_replaced_by_the_next(
    reports: tuple[str, "Queue[dict[str, Any]]"], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    url, told = reports
    token = tmp_path / "token"
    token.write_text("token")
    reporter = ProgressReporter("rl", 1, url, token)
    with caplog.at_level(logging.WARNING):
        reporter.checkpoint(3, "s3://bucket/" + 2000 * "x")
        wait_for("the failure is logged", lambda: bool(caplog.messages), DEADLINE)
    assert caplog.messages[0].startswith("progress: ValidationError")
    reporter.checkpoint(4, "s3://bucket/short")
    assert told.get(timeout=DEADLINE)["checkpointStep"] == 4
    reporter.close()
