# SPDX-License-Identifier: Apache-2.0
"""The HTTP server against clients that behave badly."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from r1reward_operator.health import health_handler
from r1reward_operator.http import Answer, HttpServer, Request
from r1reward_operator.kube.store import Store
from r1reward_operator.metrics import Metrics
from tests.dripping import drip_until_let_go


def echo(request: Request) -> Answer:
    if request.path == "/fault":
        raise ValueError("secret")
    return Answer(200, request.body)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    made = HttpServer("127.0.0.1", 0, echo, body_limit=10)
    made.start()
    yield made
    made.close()


def test_a_body_up_to_the_limit_is_read_and_a_longer_one_refused(server: HttpServer):
    url = f"http://127.0.0.1:{server.port}/"
    assert httpx.post(url, content=b"0123456789").content == b"0123456789"
    assert httpx.post(url, content=b"0123456789x").status_code == 413
    assert httpx.post(url, content=iter([b"chunk"])).status_code == 411


def test_a_fault_of_the_handler_is_a_500_that_says_nothing(server: HttpServer):
    answer = httpx.get(f"http://127.0.0.1:{server.port}/fault")
    assert (answer.status_code, answer.text) == (500, "internal error\n")


def test_a_client_that_sends_nothing_does_not_keep_others_waiting(server: HttpServer):
    with socket.create_connection(("127.0.0.1", server.port)):
        assert httpx.get(f"http://127.0.0.1:{server.port}/").status_code == 200


@pytest.mark.parametrize("begun", [b"", b"POST / HTTP/1.0\r\nContent-Length: 100000\r\n\r\n"])
def test_a_client_that_drips_its_request_is_let_go(begun: bytes):
    server = HttpServer("127.0.0.1", 0, echo, body_limit=10**6, read_seconds=0.3)
    server.start()
    try:
        assert drip_until_let_go("127.0.0.1", server.port, begun) == b""
    finally:
        server.close()


def test_probes_name_what_is_wrong_and_metrics_count_jobs_by_stage_and_phase():
    metrics, jobs = Metrics(), Store()
    for number, phase in enumerate(["Running", "Running", "Failed"]):
        name = {"namespace": "n", "name": f"j{number}", "uid": str(number), "resourceVersion": "1"}
        jobs.upsert({"metadata": name, "status": {"stage": "rl", "phase": phase}})
    metrics.watch_jobs(jobs)
    handle = health_handler(metrics.registry, lambda: "", lambda: "waiting for pods")

    def get(path: str) -> Answer:
        return handle(Request("GET", path, {}, b""))

    assert (get("/healthz").code, get("/readyz").code) == (200, 503)
    assert get("/readyz").body == b"waiting for pods\n"
    assert get("/other").code == 404
    families = text_string_to_metric_families(get("/metrics").body.decode())
    counted = {
        (s.labels["stage"], s.labels["phase"]): s.value
        for family in families
        for s in family.samples
        if s.name == "r1reward_jobs"
    }
    assert counted == {("rl", "Running"): 2, ("rl", "Failed"): 1}
