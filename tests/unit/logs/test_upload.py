# SPDX-License-Identifier: Apache-2.0
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from r1reward_rollout.periodic import Periodic
from r1reward_rollout.tail import Tail
from r1reward_rollout.upload import ChangesOnly, presigned_uploads


class Clock:
    """Time that passes only in pauses; the program ends after so many seconds."""

    def __init__(self, end: float) -> None:
        self.now = 0.0
        self._end = end

    def pause(self, seconds: float) -> bool:
        self.now = min(self._end, self.now + seconds)
        return self.now == self._end


def run(work: Any, clock: Clock, first: float | None = None) -> None:
    with Periodic("log upload", work, 30.0, 10.0, first, clock.pause):
        pass


def test_work_is_done_at_least_every_interval_and_at_the_end() -> None:
    clock = Clock(100.0)
    times: list[float] = []
    run(lambda: times.append(clock.now), clock)
    assert times[-1] == 100.0
    steps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert all(24.0 <= step <= 30.0 for step in steps[:-1])
    assert 0.0 <= steps[-1] <= 30.0


def test_early_work_comes_soon_and_then_less_often() -> None:
    clock = Clock(100.0)
    times: list[float] = []
    run(lambda: times.append(clock.now), clock, first=1.0)
    steps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    bounds = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
    for step, bound in zip(steps, bounds, strict=False):
        assert 0.8 * bound <= step <= bound


def test_a_failure_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(100.0)
    tries: list[float] = []

    def fail() -> None:
        tries.append(clock.now)
        raise OSError("no route to storage")

    with caplog.at_level(logging.WARNING):
        run(fail, clock)
    assert len(tries) >= 4
    assert caplog.messages == ["log upload: OSError: no route to storage"]


def test_a_hanging_last_time_is_not_waited_for() -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(30)

    with Periodic("log upload", hang, 30.0, 0.05) as periodic:
        pass
    assert periodic._thread.is_alive()
    release.set()
    periodic._thread.join(10)


def test_only_what_has_changed_is_put(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "tail")
    puts: list[bytes] = []
    upload = ChangesOnly(tail, puts.append)
    upload()
    tail.append(b"one\n")
    upload()
    upload()
    tail.append(b"two\n")
    upload()
    assert puts == [b"one\n", b"one\ntwo\n"]


def test_what_could_not_be_put_is_put_the_next_time(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "tail")
    tail.append(b"one\n")
    puts: list[bytes] = []

    def put(data: bytes) -> None:
        puts.append(data)
        if len(puts) == 1:
            raise OSError

    upload = ChangesOnly(tail, put)
    with pytest.raises(OSError):
        upload()
    upload()
    upload()
    assert puts == [b"one\n", b"one\n"]


@contextmanager
def object_server(status: int) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """URL of a server of HTTP that answers with the status, and what was put there."""
    puts: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            puts.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", puts
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_server_puts_its_log_where_its_init_container_may(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "tail")
    with object_server(200) as (url, puts):
        (tmp_path / "url").write_text(f"{url}/bucket/rollout-a.log?X-Amz-Signature=s\n")
        with presigned_uploads(tail, {"R1_LOG_URL_FILE": str(tmp_path / "url")}):
            tail.append(b"engine failed\n")
    assert puts == [("/bucket/rollout-a.log?X-Amz-Signature=s", b"engine failed\n")]


def test_a_refused_put_is_told_without_the_signature(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tail = Tail(tmp_path / "tail")
    with object_server(403) as (url, _):
        (tmp_path / "url").write_text(f"{url}/o?X-Amz-Signature=secret")
        with presigned_uploads(tail, {"R1_LOG_URL_FILE": str(tmp_path / "url")}):
            tail.append(b"engine failed\n")
    assert caplog.messages == ["log upload: HTTPError: HTTP Error 403: Forbidden"]


def test_without_a_url_nothing_is_put(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "tail")
    with presigned_uploads(tail, {"R1_LOG_URL_FILE": str(tmp_path / "none")}):
        tail.append(b"engine failed\n")
