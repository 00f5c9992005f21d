# SPDX-License-Identifier: Apache-2.0
"""The fleet against real HTTP servers on loopback addresses.

They speak a rollout server's protocol without a model, to provoke what vLLM cannot be made to
do: freeze, lose its address to another pod, restart within a prompt.
"""

import re
import time

import pytest

from r1reward_trainer.rollout import (
    GenerateRequest,
    NoHealthyServer,
    RequestRefused,
    RolloutError,
    Sampling,
    ServerStatus,
    UpdateTiming,
    WeightUpdateFailed,
)
from tests.unit.rollout.asking import (
    UPDATE,
    answered,
    eventually,
    ids,
    in_background,
    prompts,
    ready,
    weights,
)
from tests.unit.rollout.conftest import Site
from tests.unit.rollout.protocol_server import BASE, ProtocolServer

# --- prompts ---


def test_prompts_are_answered_in_order_by_all_servers(site: Site) -> None:
    servers = [site.server(1), site.server(2)]
    fleet = site.fleet()
    timings = fleet.set_weights(weights("1-0-a"))
    assert set(timings) == {server.address for server in servers}
    assert answered(fleet.generate(prompts(20))) == (ids(20), {"1-0-a"})
    assert all(server.generated for server in servers)


def test_a_server_never_has_more_prompts_than_allowed_and_the_load_is_even(site: Site) -> None:
    servers = [site.server(1), site.server(2)]
    fleet = site.fleet(max_in_flight_per_server=3)
    fleet.set_weights(weights("1-0-a"))
    for server in servers:
        server.hold()
    results = in_background(lambda: fleet.generate(prompts(11)))
    eventually(lambda: [server.in_flight for server in servers] == [3, 3])
    for server in servers:
        server.release()
    results.result(10)
    assert [server.most_in_flight for server in servers] == [3, 3]


def await_probes(times: int, *servers: ProtocolServer) -> None:
    """Waits until each has been looked at so many times more."""
    seen = [server.probes for server in servers]
    eventually(lambda: all(s.probes > n + times for s, n in zip(servers, seen, strict=True)))


def test_what_a_server_has_at_once_grows_until_something_waits_in_it(site: Site) -> None:
    servers = [site.server(1, capacity=12), site.server(2, capacity=100)]
    fleet = site.fleet(first_in_flight_per_server=2, max_in_flight_per_server=32)
    fleet.set_weights(weights("1-0-a"))
    for server in servers:
        server.hold()
    results = in_background(lambda: fleet.generate(prompts(100)))
    eventually(lambda: [server.in_flight for server in servers] == [16, 32])
    await_probes(8, *servers)
    for server in servers:
        server.release()
    assert answered(results.result(10)) == (ids(100), {"1-0-a"})
    assert [server.most_in_flight for server in servers] == [16, 32]


def test_what_a_server_has_at_once_shrinks_while_more_waits_in_it_than_runs(site: Site) -> None:
    server = site.server(1, capacity=1)
    fleet = site.fleet(first_in_flight_per_server=16, max_in_flight_per_server=32)
    fleet.set_weights(weights("1-0-a"))
    server.hold()
    results = in_background(lambda: fleet.generate(prompts(16)))
    eventually(lambda: server.in_flight == 16)
    await_probes(12, server)
    server.release()
    results.result(10)
    server.hold()
    results = in_background(lambda: fleet.generate(prompts(16)))
    await_probes(3, server)
    eventually(lambda: server.in_flight > 0)
    assert server.in_flight <= 2
    server.release()
    assert answered(results.result(10)) == (ids(16), {"1-0-a"})


def test_a_server_that_does_not_tell_its_queue_has_as_many_prompts_as_in_the_beginning(
    site: Site,
) -> None:
    server = site.server(1)
    fleet = site.fleet(first_in_flight_per_server=3, max_in_flight_per_server=32)
    fleet.set_weights(weights("1-0-a"))
    server.hold()
    results = in_background(lambda: fleet.generate(prompts(11)))
    eventually(lambda: server.in_flight == 3)
    await_probes(8, server)
    server.release()
    assert answered(results.result(10)) == (ids(11), {"1-0-a"})
    assert server.most_in_flight == 3


def test_a_prompt_that_a_server_refuses_is_not_tried_elsewhere(site: Site) -> None:
    servers = [site.server(1), site.server(2)]
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    refused = GenerateRequest(id="bad", token_ids=(0,), sampling=Sampling(max_tokens=1))
    with pytest.raises(RequestRefused, match="HTTP 400"):
        fleet.generate([refused])
    assert sum(server.calls.count("/inference/v1/generate") for server in servers) == 1
    assert answered(fleet.generate(prompts(2))) == (ids(2), {"1-0-a"})


def test_a_prompt_that_fails_everywhere_ends_after_the_allowed_attempts(site: Site) -> None:
    servers = [site.server(1), site.server(2)]
    fleet = site.fleet(request_attempts=2)
    fleet.set_weights(weights("1-0-a"))
    for server in servers:
        server.broken = lambda path: path == "/inference/v1/generate"
    with pytest.raises(NoHealthyServer, match=r"request p0 failed 2 times.*HTTP 500"):
        fleet.generate(prompts(1))
    assert sum(server.calls.count("/inference/v1/generate") for server in servers) == 2


def test_prompts_before_any_weights_are_an_error(site: Site) -> None:
    site.server(1)
    with pytest.raises(RolloutError, match="call set_weights before generate"):
        site.fleet().generate(prompts(1))


# --- faults ---


def test_the_work_of_a_dead_server_moves_to_the_others(site: Site) -> None:
    dying, other = site.server(1), site.server(2)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    dying.hold()
    results = in_background(lambda: fleet.generate(prompts(12)))
    eventually(lambda: dying.in_flight > 0)
    dying.kill()
    assert answered(results.result(10)) == (ids(12), {"1-0-a"})
    assert len(other.generated) == 12


def test_a_frozen_server_is_given_up_by_its_probe_long_before_the_request_times_out(
    site: Site,
) -> None:
    frozen, other = site.server(1), site.server(2)
    fleet = site.fleet(request_timeout=600.0, probe_timeout=0.3)
    fleet.set_weights(weights("1-0-a"))
    frozen.hold()
    results = in_background(lambda: fleet.generate(prompts(12)))
    eventually(lambda: frozen.in_flight > 0)
    frozen.frozen = True
    assert answered(results.result(10)) == (ids(12), {"1-0-a"})
    assert len(other.generated) == 12
    assert list(ready(fleet)) == [other.address]


def test_a_server_whose_engine_is_too_busy_to_tell_its_weights_keeps_its_prompts(
    site: Site,
) -> None:
    server = site.server(1)
    fleet = site.fleet(probe_timeout=0.2)
    fleet.set_weights(weights("1-0-a"))
    server.hold()
    results = in_background(lambda: fleet.generate(prompts(3)))
    eventually(lambda: server.in_flight == 3)
    server.silent = {"/weight_info"}
    await_probes(8, server)
    server.release()
    assert answered(results.result(10)) == (ids(3), {"1-0-a"})
    assert server.calls.count("/inference/v1/generate") == 3


def test_an_idle_server_whose_engine_does_not_answer_gets_no_prompt(site: Site) -> None:
    hung, other = site.server(1), site.server(2)
    fleet = site.fleet(probe_timeout=0.2)
    fleet.set_weights(weights("1-0-a"))
    hung.silent = {"/weight_info"}
    eventually(lambda: list(ready(fleet)) == [other.address])
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-0-a"})
    assert hung.generated == []


def test_a_server_that_refuses_the_token_gets_no_prompt(site: Site) -> None:
    refusing, other = site.server(1), site.server(2)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    refusing.refuses_token = True
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-0-a"})
    eventually(lambda: list(ready(fleet)) == [other.address])
    assert any("HTTP 401" in status.reason for status in fleet.status())


def test_a_server_that_restarts_within_a_prompt_answers_it_with_the_current_weights(
    site: Site,
) -> None:
    server = site.server(1)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    server.hold()
    results = in_background(lambda: fleet.generate(prompts(3)))
    eventually(lambda: server.in_flight == 3)
    server.restart()
    server.release()
    assert answered(results.result(10)) == (ids(3), {"1-0-a"})


def test_an_answer_with_other_weights_is_refused_and_the_server_brought_up(site: Site) -> None:
    server = site.server(1)
    fleet = site.fleet(resolve_interval=60.0)  # no probe comes between the restart and the prompt
    fleet.set_weights(weights("1-0-a"))
    eventually(lambda: ready(fleet) == {server.address: "1-0-a"})
    server.version = BASE
    assert answered(fleet.generate(prompts(3))) == (ids(3), {"1-0-a"})
    assert server.version == "1-0-a"


@pytest.mark.parametrize("stranger", [{"token": "another-jobs-token"}, {"job_uid": "another-job"}])
def test_an_address_that_another_pod_took_over_gets_neither_token_nor_prompt(
    site: Site, stranger: dict[str, str]
) -> None:
    mine, other = site.server(1), site.server(2)
    fleet = site.fleet(resolve_interval=60.0)  # no probe finds it out before the prompts come
    fleet.set_weights(weights("1-0-a"))
    eventually(lambda: mine.calls.count("/weight_info") == 3)  # before, in and after the update
    mine.kill()
    taken = site.server(1, pod_uid="stranger", **stranger)
    assert answered(fleet.generate(prompts(6))) == (ids(6), {"1-0-a"})
    eventually(lambda: any("is not a rollout server" in s.reason for s in fleet.status()))
    assert (taken.calls, taken.unauthorised, taken.generated) == ([], [], [])
    assert len(other.generated) == 6


def test_a_new_pod_of_the_job_at_an_old_address_is_brought_to_the_current_weights(
    site: Site,
) -> None:
    old = site.server(1)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    old.kill()
    new = site.server(1, pod_uid="its-successor")
    assert answered(fleet.generate(prompts(3))) == (ids(3), {"1-0-a"})
    assert [path for path in new.calls if path in UPDATE] == UPDATE


def test_without_any_server_the_error_has_every_reason(site: Site) -> None:
    dead, stranger = site.server(1), site.server(2)
    fleet = site.fleet(no_server_timeout=1.0)
    fleet.set_weights(weights("1-0-a"))
    dead.kill()
    stranger.token = "another-jobs-token"
    with pytest.raises(NoHealthyServer) as caught:
        fleet.generate(prompts(2))
    message = str(caught.value)
    assert re.search(r"127\.0\.0\.2: 127\.0\.0\.2/\S+: ConnectError", message)
    assert "127.0.0.3: 127.0.0.3 is not a rollout server of this job's attempt" in message


def test_a_name_that_does_not_resolve_loses_no_known_server(site: Site) -> None:
    site.server(1)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    site.resolves = False
    late = site.server(2)
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-0-a"})
    assert late.generated == []
    site.resolves = True
    eventually(lambda: late.address in ready(fleet))


def test_a_server_that_the_service_no_longer_names_finishes_its_prompts_and_gets_no_more(
    site: Site,
) -> None:
    leaving, other = site.server(1), site.server(2)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    leaving.hold()
    first = in_background(lambda: fleet.generate(prompts(2)))
    eventually(lambda: leaving.in_flight == 1)
    site.listed.remove(leaving.address)
    eventually(lambda: list(ready(fleet)) == [other.address])
    assert answered(fleet.generate(prompts(6))) == (ids(6), {"1-0-a"})
    leaving.release()
    first.result(10)
    assert len(leaving.generated) == 1
    eventually(lambda: [status.address for status in fleet.status()] == [other.address])


# --- weights ---


def test_every_server_is_prepared_before_any_is_paused(site: Site) -> None:
    order: list[str] = []
    servers = [site.server(1), site.server(2)]
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    for server in servers:
        server.calls.clear()
        server.observer = order.append
    fleet.set_weights(weights("1-1-b"))
    steps = [path for path in order if path in (*UPDATE, "/collective_rpc")]
    assert max(i for i, path in enumerate(steps) if path == "/collective_rpc") < steps.index(
        "/pause"
    )
    for server in servers:
        assert [path for path in server.calls if path in UPDATE] == UPDATE
    assert ready(fleet) == {server.address: "1-1-b" for server in servers}


def test_weights_are_not_swapped_while_prompts_are_under_way(site: Site) -> None:
    server = site.server(1)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    server.hold()
    results = in_background(lambda: fleet.generate(prompts(2)))
    eventually(lambda: server.in_flight == 2)
    update = in_background(lambda: fleet.set_weights(weights("1-1-b")))
    eventually(lambda: server.calls.count("/collective_rpc") == 4)
    assert server.calls.count("/pause") == 1
    server.release()
    assert answered(results.result(10)) == (ids(2), {"1-0-a"})
    update.result(10)
    assert answered(fleet.generate(prompts(2))) == (ids(2), {"1-1-b"})


def test_weights_that_the_servers_have_already_cost_no_update(site: Site) -> None:
    server = site.server(1)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    server.calls.clear()
    assert fleet.set_weights(weights("1-0-a")) == {server.address: UpdateTiming(0.0, 0.0)}
    assert [path for path in server.calls if path in UPDATE] == []


def test_weights_that_no_server_takes_leave_those_set_before(site: Site) -> None:
    servers = [site.server(number, refuses={"1-1-b": "wrong shape"}) for number in (1, 2)]
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    with pytest.raises(WeightUpdateFailed) as caught:
        fleet.set_weights(weights("1-1-b"))
    assert all(
        f"{server.address} refuses 1-1-b: wrong shape" in str(caught.value) for server in servers
    )
    assert all(server.calls.count("/pause") == 1 for server in servers)
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-0-a"})


def test_a_server_that_misses_an_update_gets_it_before_its_next_prompt(site: Site) -> None:
    good, late = site.server(1), site.server(2)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    late.broken = lambda path: path == "/update_weights"
    assert list(fleet.set_weights(weights("1-1-b"))) == [good.address]
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-1-b"})
    assert late.generated == []
    late.broken = lambda path: False
    eventually(lambda: ready(fleet) == {good.address: "1-1-b", late.address: "1-1-b"})
    assert answered(fleet.generate(prompts(8))) == (ids(8), {"1-1-b"})
    assert late.generated


@pytest.mark.parametrize("step", ["/collective_rpc", "/update_weights"])
def test_an_only_server_that_restarts_within_an_update_is_updated_again(
    site: Site, step: str
) -> None:
    server = site.server(1)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    server.calls.clear()
    server.silent = {step}
    update = in_background(lambda: fleet.set_weights(weights("1-1-b")))
    eventually(lambda: step in server.calls)
    server.silent = set()
    server.restart()
    assert list(update.result(10)) == [server.address]
    assert answered(fleet.generate(prompts(2))) == (ids(2), {"1-1-b"})


def test_a_server_that_joins_late_gets_the_weights_before_any_prompt(site: Site) -> None:
    site.server(1)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    late = site.server(2)
    eventually(lambda: late.address in ready(fleet))
    assert [path for path in late.calls if path in UPDATE] == UPDATE


def test_weights_wait_for_a_first_server_and_no_longer_than_allowed(site: Site) -> None:
    site.resolves = False
    fleet = site.fleet(no_server_timeout=0.3)
    begin = time.monotonic()
    with pytest.raises(NoHealthyServer, match="rollout does not resolve"):
        fleet.set_weights(weights("1-0-a"))
    assert time.monotonic() - begin < 5


def test_a_signing_error_is_the_callers(site: Site) -> None:
    def sign(key: str) -> str:
        raise PermissionError("no credentials")

    site.server(1)
    fleet = site.fleet(presign=sign)
    with pytest.raises(PermissionError, match="no credentials"):
        fleet.set_weights(weights("1-0-a"))


# --- life ---


def test_closing_ends_what_waits_in_other_threads(site: Site) -> None:
    server = site.server(1)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    server.hold()
    results = in_background(lambda: fleet.generate(prompts(1)))
    eventually(lambda: server.in_flight == 1)
    fleet.close()
    with pytest.raises(RolloutError, match="closed"):
        results.result(10)
    with pytest.raises(RolloutError, match="closed"):
        fleet.status()


def test_status_says_of_every_server_what_it_has_and_why_it_is_not_used(site: Site) -> None:
    good = site.server(1)
    stranger = site.server(2, token="another-jobs-token")
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    assert fleet.status() == [
        ServerStatus(good.address, True, "1-0-a", 0, ""),
        ServerStatus(
            stranger.address,
            False,
            None,
            0,
            f"{stranger.address} is not a rollout server of this job's attempt",
        ),
    ]
