# SPDX-License-Identifier: Apache-2.0
"""Servers that fail again and again, fall silent in the middle, or hold another model."""

import threading
from collections.abc import Callable

import pytest

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError, StageError
from r1reward_trainer.rollout import NoHealthyServer, WeightsMisfit, WeightUpdateFailed
from r1reward_trainer.rollout.failures import rollout_errors
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

MISFIT = "WrongWeights: lm_head.weight is F32[319, 64] instead of F32[320, 64]"


def at(path: str, then: Callable[[], None]) -> Callable[[str], None]:
    """An observer that acts when a server is asked for a path."""
    return lambda asked: then() if asked == path else None


def test_prompts_are_all_answered_once_though_two_servers_are_killed_in_turns(site: Site) -> None:
    servers = [site.server(1), site.server(2)]
    fleet = site.fleet(max_in_flight_per_server=4, request_attempts=20)
    fleet.set_weights(weights("1-0-a"))
    restarts = 0
    results = []
    for server in [*servers, *servers, *servers]:
        server.hold()
        pending = in_background(lambda: fleet.generate(prompts(12)))
        eventually(lambda server=server: server.in_flight > 0)
        server.restart()  # within its prompts; it comes back with the base weights
        restarts += 1
        server.release()
        results.append(answered(pending.result(20)))
    assert results == [(ids(12), {"1-0-a"})] * restarts


def test_both_servers_lost_at_once_delay_the_prompts_and_lose_none(site: Site) -> None:
    servers = [site.server(1), site.server(2)]
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    for server in servers:
        server.hold()
    results = in_background(lambda: fleet.generate(prompts(8)))
    eventually(lambda: all(server.in_flight == 4 for server in servers))
    for server in servers:
        server.kill()
    eventually(lambda: ready(fleet) == {})
    for server in servers:
        server.restart()
        server.release()
    assert answered(results.result(20)) == (ids(8), {"1-0-a"})


def test_a_prompt_that_reached_no_server_has_cost_no_attempt(site: Site) -> None:
    server = site.server(1)
    fleet = site.fleet(request_attempts=1, resolve_interval=1.0)  # the prompts find out first
    fleet.set_weights(weights("1-0-a"))
    eventually(lambda: server.calls.count("/weight_info") == 3)
    server.kill()
    results = in_background(lambda: fleet.generate(prompts(3)))
    eventually(lambda: ready(fleet) == {})
    server.restart()
    assert answered(results.result(20)) == (ids(3), {"1-0-a"})


def test_a_prompt_that_ends_every_server_it_is_sent_to_is_given_up(site: Site) -> None:
    """As one that crashes the engine: else it would end them for ever."""
    servers = [site.server(1), site.server(2)]
    fleet = site.fleet(request_attempts=3)
    fleet.set_weights(weights("1-0-a"))
    for server in servers:
        server.observer = at("/inference/v1/generate", server.crash)
    with pytest.raises(NoHealthyServer, match="request p0 failed 3 times"):
        fleet.generate(prompts(1))


def test_a_thawed_server_is_brought_to_the_weights_that_it_missed_before_any_prompt(
    site: Site,
) -> None:
    frozen, other = site.server(1), site.server(2)
    fleet = site.fleet(probe_timeout=0.3)
    fleet.set_weights(weights("1-0-a"))
    frozen.frozen = True
    eventually(lambda: list(ready(fleet)) == [other.address])
    assert list(fleet.set_weights(weights("1-1-b"))) == [other.address]
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-1-b"})
    frozen.calls.clear()
    frozen.frozen = False
    eventually(lambda: ready(fleet).get(frozen.address) == "1-1-b")
    assert [path for path in frozen.calls if path in UPDATE] == UPDATE
    assert frozen.generated == []


@pytest.mark.parametrize("step", UPDATE)
def test_a_server_that_falls_silent_at_any_step_of_an_update_serves_again_when_it_is_thawed(
    site: Site, step: str
) -> None:
    """Left paused, it would tell the right weights and answer no prompt."""
    silent, other = site.server(1), site.server(2)
    fleet = site.fleet(probe_timeout=0.3, control_timeout=1.0)
    fleet.set_weights(weights("1-0-a"))

    def freeze() -> None:
        silent.frozen = True

    silent.observer = at(step, freeze)
    assert list(fleet.set_weights(weights("1-1-b"))) == [other.address]
    silent.observer = lambda path: None
    silent.frozen = False
    eventually(lambda: ready(fleet).get(silent.address) == "1-1-b")
    other.kill()
    assert answered(fleet.generate(prompts(3))) == (ids(3), {"1-1-b"})
    assert len(silent.generated) == 3


def test_a_stranger_that_takes_an_address_within_an_update_is_sent_nothing(site: Site) -> None:
    mine, other = site.server(1), site.server(2)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    mine.silent = {"/collective_rpc"}
    update = in_background(lambda: fleet.set_weights(weights("1-1-b")))
    eventually(lambda: mine.calls.count("/collective_rpc") == 3)
    mine.kill()
    taken = site.server(1, pod_uid="stranger", token="another-jobs-token")
    assert list(update.result(10)) == [other.address]
    seen = taken.probes
    eventually(lambda: taken.probes > seen + 3)
    assert (taken.calls, taken.unauthorised, taken.generated) == ([], [], [])


def test_one_server_that_refuses_the_weights_leaves_the_work_to_the_others(site: Site) -> None:
    good = site.server(1)
    refusing = site.server(2, refuses={"1-1-b": "has sha256 0…, not a…"})
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    refusing.generated.clear()
    assert list(fleet.set_weights(weights("1-1-b"))) == [good.address]
    assert answered(fleet.generate(prompts(6))) == (ids(6), {"1-1-b"})
    assert refusing.generated == []
    told = f"{refusing.address} refuses 1-1-b: has sha256 0…, not a…"
    eventually(lambda: told in [status.reason for status in fleet.status()])
    refusing.refuses = {}
    fleet.set_weights(weights("1-2-c"))
    eventually(lambda: ready(fleet) == {good.address: "1-2-c", refusing.address: "1-2-c"})


def test_weights_that_the_store_does_not_serve_for_a_while_are_offered_again_with_new_urls(
    site: Site,
) -> None:
    signed: list[str] = []

    def sign(key: str) -> str:
        signed.append(f"http://store/{key}?signature={len(signed)}")
        return signed[-1]

    servers = [site.server(number) for number in (1, 2)]
    fleet = site.fleet(sign)
    fleet.set_weights(weights("1-0-a"))
    for server in servers:
        server.unserved = {"1-1-b": "NotServed: …/1-1-b answered HTTP 403"}
    signed.clear()
    update = in_background(lambda: fleet.set_weights(weights("1-1-b")))
    eventually(lambda: len(signed) > len(servers))
    for server in servers:
        server.unserved = {}
    assert set(update.result(20)) == {server.address for server in servers}
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-1-b"})


def test_a_store_that_stays_away_is_given_up_in_time(site: Site) -> None:
    site.server(1, unserved={"1-1-b": "NotServed: …/1-1-b answered HTTP 503"})
    fleet = site.fleet(no_store_timeout=0.5)
    fleet.set_weights(weights("1-0-a"))
    with pytest.raises(InfrastructureError, match="HTTP 503") as caught, rollout_errors():
        fleet.set_weights(weights("1-1-b"))
    assert caught.value.reason == Reason.ROLLOUT_UNAVAILABLE
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-0-a"})


@pytest.mark.parametrize(
    ("reasons", "raised", "failure", "reason"),
    [
        (
            [{"misfits": {"1-1-b": MISFIT}}, {"misfits": {"1-1-b": MISFIT}}],
            WeightsMisfit,
            ConfigurationError,
            Reason.INVALID_MODEL,
        ),
        (
            [{"misfits": {"1-1-b": MISFIT}}, {"refuses": {"1-1-b": "OSError: disk full"}}],
            WeightUpdateFailed,
            InfrastructureError,
            Reason.ROLLOUT_UNAVAILABLE,
        ),
    ],
)
def test_weights_that_fit_no_server_are_a_fault_of_the_model_and_not_of_the_servers(
    site: Site,
    reasons: list[dict[str, object]],
    raised: type[WeightUpdateFailed],
    failure: type[StageError],
    reason: Reason,
) -> None:
    for number, attributes in enumerate(reasons, 1):
        site.server(number, **attributes)
    fleet = site.fleet()
    fleet.set_weights(weights("1-0-a"))
    with pytest.raises(failure) as caught, rollout_errors():
        fleet.set_weights(weights("1-1-b"))
    assert caught.value.reason == reason
    assert type(caught.value.__cause__) is raised
    assert "127.0.0.2 refuses 1-1-b: WrongWeights: lm_head.weight is F32[319, 64]" in (
        caught.value.message
    )
    assert answered(fleet.generate(prompts(4))) == (ids(4), {"1-0-a"})


def test_many_callers_of_a_flapping_fleet_get_each_its_own_answers(site: Site) -> None:
    server, other = site.server(1), site.server(2)
    fleet = site.fleet(request_attempts=50)
    fleet.set_weights(weights("1-0-a"))
    stop = threading.Event()

    def flap() -> None:
        while not stop.wait(0.05):
            server.restart()

    flapping = in_background(flap)
    callers = [in_background(lambda: fleet.generate(prompts(20))) for _ in range(4)]
    assert [answered(caller.result(20)) for caller in callers] == [(ids(20), {"1-0-a"})] * 4
    stop.set()
    flapping.result(10)
    assert other.generated
