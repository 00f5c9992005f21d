# SPDX-License-Identifier: Apache-2.0
"""Credentials of a workload identity: what is tried again, and what never comes out."""

import json
import threading
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError
from r1reward_trainer.storage.patience import Patience
from r1reward_trainer.storage.s3 import Store
from tests.clock import FakeClock
from tests.unit.storage.loopback import Faults, serve

TOKEN = "eyJhbGciOi.the-pods-own-token.signature"
CREDENTIALS_PATH = "/v1/credentials"


def credentials() -> bytes:
    end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = {"AccessKeyId": "key", "SecretAccessKey": "secret", "Token": "session"}
    return json.dumps({**keys, "Expiration": end}).encode()


@pytest.fixture
def faults() -> Faults:
    objects = {CREDENTIALS_PATH: credentials(), "/bucket/root/a": b"content"}
    return Faults(objects=objects)


@pytest.fixture
def store(faults: Faults, monkeypatch: pytest.MonkeyPatch):
    """Whose credentials come from an agent of the node, as those of EKS Pod Identity do."""
    clock = FakeClock()
    patience = Patience(clock=clock.monotonic, sleep=clock.advance)
    with serve(faults) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url + CREDENTIALS_PATH)
        yield Store("s3://bucket/root", {"AWS_ENDPOINT_URL": url}, patience)


CALLS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put("b", b"1"),
    "put_if": lambda store: store.put_if("c", b"1", None),
    "presign": lambda store: store.presign_get("a", 60),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", ["status:503", "status:429", "code:400:Throttling", "drop"])
def test_credentials_that_are_late_are_waited_for(
    store: Store, faults: Faults, call: str, fault: str
):
    faults.planned = deque([fault, fault])
    CALLS[call](store)
    assert faults.requests[:3] == ["GET"] * 3


@pytest.mark.parametrize("call", CALLS)
def test_credentials_that_do_not_come_for_two_minutes_are_a_fault_of_the_infrastructure(
    store: Store, faults: Faults, call: str
):
    faults.until = lambda: False
    with pytest.raises(InfrastructureError) as caught:
        CALLS[call](store)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert "credentials of the workload identity: localhost answers HTTP 503" in str(caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("code:403:AccessDenied", "localhost answers HTTP 403 AccessDenied"),
        ("status:404", "localhost answers HTTP 404"),
        (b"<html>", "cannot be read (JSONDecodeError)"),
        (b"{}", "cannot be read (KeyError)"),
    ],
    ids=str,
)
def test_credentials_that_are_refused_name_the_service_account_at_once(
    store: Store, faults: Faults, call: str, fault: str | bytes, words: str
):
    if isinstance(fault, bytes):
        faults.objects[CREDENTIALS_PATH] = fault
    else:
        faults.planned = deque([fault])
    with pytest.raises(ConfigurationError) as caught:
        CALLS[call](store)
    assert caught.value.reason is Reason.STORAGE_DENIED
    assert words in str(caught.value)
    assert "spec.storage.serviceAccountName" in str(caught.value)
    assert faults.requests == ["GET"]


def test_credentials_are_asked_for_once_however_many_threads_want_them(
    store: Store, faults: Faults
):
    threads = [threading.Thread(target=store.get, args=("a",)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(faults.requests) == len(threads) + 1


@pytest.mark.parametrize("status", [403, 503])
def test_the_pods_token_is_in_no_error_although_sts_takes_it_in_the_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
):
    asked: list[str] = []

    def answer(self: object, method: str, url: str, *_: Any, **__: Any) -> urllib3.HTTPResponse:
        asked.append(url)
        return urllib3.HTTPResponse(body=b"<ErrorResponse/>", status=status)

    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/x")
    monkeypatch.setattr(urllib3.PoolManager, "urlopen", answer)
    clock = FakeClock()
    patience = Patience(clock=clock.monotonic, sleep=clock.advance)
    store = Store("s3://bucket/p", {"AWS_REGION": "eu-central-1"}, patience)
    with pytest.raises((ConfigurationError, InfrastructureError)) as caught:
        store.get("a")
    assert all("WebIdentityToken" in url for url in asked), "nothing would be shown"
    assert asked
    told = "".join(traceback.format_exception(caught.value))
    assert "sts.eu-central-1.amazonaws.com answers HTTP" in told
    assert TOKEN not in told
