# SPDX-License-Identifier: Apache-2.0
import datetime
import ssl
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError
from r1reward_trainer.storage.patience import Patience
from r1reward_trainer.storage.s3 import PreconditionFailed, Store
from tests.clock import FakeClock
from tests.unit.storage.loopback import CREDENTIALS, Faults, etag, serve


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(faults: Faults, clock: FakeClock) -> Iterator[Store]:
    patience = Patience(clock=clock.monotonic, sleep=clock.advance)
    with serve(faults) as url:
        yield Store("s3://bucket/root", {**CREDENTIALS, "AWS_ENDPOINT_URL": url}, patience)


def test_a_passing_fault_is_tried_again(store: Store, faults: Faults):
    faults.objects["/bucket/root/a"] = b"content"
    faults.planned = deque(["status:503", "drop", "status:500"])
    assert store.get("a") == b"content"
    assert faults.requests == ["GET"] * 4


def test_a_fault_of_a_minute_is_survived(store: Store, faults: Faults, clock: FakeClock):
    faults.objects["/bucket/root/a"] = b"content"
    faults.until = lambda: clock.monotonic() >= 60
    assert store.get("a") == b"content"
    assert 60 <= clock.monotonic() < 75


def telling(url: str, clock: FakeClock) -> tuple[Store, list[tuple[float, str | None]]]:
    told: list[tuple[float, str | None]] = []

    def tell(fault: str | None) -> None:
        told.append((clock.monotonic(), fault))

    patience = Patience(clock=clock.monotonic, sleep=clock.advance)
    environ = {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
    return Store("s3://bucket/root", environ, patience, tell), told


def test_a_fault_that_lasts_is_told_while_it_is_tried_and_its_end_too(
    faults: Faults, clock: FakeClock
):
    faults.objects["/bucket/root/a"] = b"content"
    faults.until = lambda: clock.monotonic() >= 60
    with serve(faults) as url:
        store, told = telling(url, clock)
        store.get("a")
        words = {fault for _, fault in told[:-1]}
        assert words == {f"storage {url} does not work: HTTP 503; it is tried for 120 s"}
        assert told[-1][1] is None
        told.clear()
        faults.planned = deque(["status:503", "drop"])
        store.get("a")
        assert told == [], "a fault that passes is nobody's concern"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://no-such-store.invalid", "its name does not resolve"),
    ],
)
def test_an_endpoint_that_is_wrong_is_told_long_before_it_is_given_up(
    clock: FakeClock, url: str, fault: str
):
    store, told = telling(url, clock)
    with pytest.raises(InfrastructureError, match=fault):
        store.put("a", b"")
    when, text = told[0]
    assert 10 <= when <= 20
    assert text is not None
    assert text.startswith(f"storage {url} does not work: ")
    assert fault in text
    assert told[-1][1] is None, "once it is given up, nobody waits for it"


def test_a_lasting_fault_ends_when_patience_does(store: Store, faults: Faults, clock: FakeClock):
    faults.until = lambda: False
    with pytest.raises(InfrastructureError) as caught:
        store.get("a")
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
    assert "s3://bucket/root/a" in caught.value.message
    assert "still so after 120 s" in caught.value.message
    assert 105 < clock.monotonic() <= 120
    assert len(faults.requests) < 30


def test_pauses_double_up_to_a_limit_and_half_of_each_is_drawn(clock: FakeClock):
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)

    draws = iter([0.0, 0.999] * 20)
    tries = Patience(30, 1, 8, clock.monotonic, sleep, lambda: next(draws)).begin()
    while tries.again():
        pass
    assert [round(pause, 1) for pause in pauses] == [0.5, 2.0, 2.0, 8.0, 4.0, 8.0, 4.0]


@pytest.mark.parametrize(
    "answer", ["status:507", "code:400:XMinioAdminBucketQuotaExceeded", "code:403:QuotaExceeded"]
)
def test_a_store_without_room_is_told_from_one_that_is_away(
    store: Store, faults: Faults, answer: str
):
    for write in (lambda: store.put("a", b"content"), lambda: store.put_if("b", b"c", None)):
        faults.planned = deque([answer] * 100)
        with pytest.raises(InfrastructureError, match="free space in the store") as caught:
            write()
        assert caught.value.reason == Reason.STORAGE_FULL


def test_a_clock_that_is_wrong_is_named_as_long_as_it_is(store: Store, faults: Faults):
    faults.planned = deque(["code:403:RequestTimeTooSkewed"] * 100)
    with pytest.raises(InfrastructureError, match="clocks of this node and of the store") as caught:
        store.put("a", b"content")
    assert caught.value.reason == Reason.STORAGE_UNAVAILABLE
    faults.planned = deque(["code:403:RequestTimeTooSkewed"])
    store.put("a", b"content")


def test_a_refusal_is_not_tried_again(store: Store, faults: Faults):
    faults.planned = deque(["status:403"])
    with pytest.raises(ConfigurationError) as caught:
        store.put("a", b"content")
    assert caught.value.reason == Reason.STORAGE_DENIED
    assert "spec.storage.secretRef" in caught.value.message
    assert faults.requests == ["PUT"]


def test_an_object_of_a_folder_that_may_not_be_deleted_is_a_refusal_and_not_an_outage(
    store: Store, faults: Faults
):
    faults.objects["/bucket/root/folder/a"] = b"content"
    faults.planned = deque(["", "refused:AccessDenied"])
    with pytest.raises(ConfigurationError, match="AccessDenied") as caught:
        store.delete_prefix("folder")
    assert caught.value.reason == Reason.STORAGE_DENIED
    assert faults.requests == ["GET", "POST"]

    faults.planned = deque(["", "refused:InternalError"])
    store.delete_prefix("folder")
    assert faults.requests == ["GET", "POST"] * 3, "what passes is tried again"


def test_a_conditional_put_whose_answer_was_lost_is_recognised_as_ours(
    store: Store, faults: Faults
):
    faults.planned = deque(["lost"])
    assert store.put_if("pointer", b"ours", None) == etag(b"ours")
    assert faults.requests == ["PUT", "PUT", "GET"]


def test_a_conditional_put_that_lost_the_race_is_not_taken_for_ours(store: Store, faults: Faults):
    faults.objects["/bucket/root/pointer"] = b"theirs"
    faults.planned = deque(["drop"])
    with pytest.raises(PreconditionFailed):
        store.put_if("pointer", b"ours", None)


def test_a_server_without_conditional_puts_is_named(store: Store, faults: Faults):
    faults.planned = deque(["status:501"])
    with pytest.raises(ConfigurationError) as caught:
        store.put_if("pointer", b"ours", None)
    assert caught.value.reason == Reason.CONDITIONAL_PUT_UNSUPPORTED


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_the_access_check_finds_a_server_that_ignores_conditions(
    store: Store, faults: Faults, ignored: str
):
    faults.ignored_headers.add(ignored)
    with pytest.raises(ConfigurationError) as caught:
        store.check_access()
    assert caught.value.reason == Reason.CONDITIONAL_PUT_UNSUPPORTED
    assert f"{ignored} was ignored" in caught.value.message


def test_the_access_check_finds_a_server_without_etags(store: Store, faults: Faults):
    faults.etags = False
    with pytest.raises(ConfigurationError) as caught:
        store.check_access()
    assert caught.value.reason == Reason.CONDITIONAL_PUT_UNSUPPORTED


def test_a_private_certificate_needs_the_secrets_ca(tmp_path: Path, faults: Faults):
    certificate, context = _self_signed(tmp_path)
    faults.objects["/bucket/a"] = b"content"
    with serve(faults, context) as url:
        environ = {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
        without = Store("s3://bucket", {**environ, "R1_S3_CA_FILE": str(tmp_path / "absent")})
        with pytest.raises(ConfigurationError) as caught:
            without.get("a")
        assert caught.value.reason == Reason.STORAGE_DENIED
        assert "ca.crt" in caught.value.message
        with pytest.raises(ConfigurationError, match=r"ca\.crt"):
            without.put_if("b", b"content", None)

        with_ca = Store("s3://bucket", {**environ, "R1_S3_CA_FILE": str(certificate)})
        assert with_ca.get("a") == b"content"
        assert with_ca.put_if("b", b"content", None) == etag(b"content")


@pytest.mark.parametrize(
    ("uri", "environ", "named"),
    [
        ("/local/path", {}, "s3://bucket/prefix"),
        ("s3://bucket/team/./a", {}, r"no folder \. or \.\."),
        ("s3://bucket/team\ta", {}, "no tab"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "localhost:9000"}, "AWS_ENDPOINT_URL"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "https://host/path"}, "AWS_ENDPOINT_URL"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "http://[::1"}, "AWS_ENDPOINT_URL"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "http://host:99999"}, "AWS_ENDPOINT_URL"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "http://host:abc"}, "AWS_ENDPOINT_URL"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "http://ho st"}, "AWS_ENDPOINT_URL"),
        ("s3://bucket", {"AWS_REGION": "us east"}, "AWS_REGION 'us east'"),
        ("s3://bucket", {"AWS_ACCESS_KEY_ID": "key"}, "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(uri: str, environ: dict[str, str], named: str):
    with pytest.raises(ConfigurationError, match=named):
        Store(uri, environ)


@pytest.mark.parametrize(
    "name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"]
)
@pytest.mark.parametrize("planted", ["Planted\nSecret", "Planted\x07Secret", "Plantedé"])
def test_a_setting_that_no_header_can_hold_is_named_and_not_shown(name: str, planted: str):
    with pytest.raises(ConfigurationError, match=name) as found:
        Store("s3://bucket", {**CREDENTIALS, name: planted})
    assert "Planted" not in found.value.message


@pytest.mark.parametrize(
    "endpoint", ["http://user:Planted@host", "http://host?t=Planted", "http://host/#Planted"]
)
def test_an_endpoint_that_may_hold_a_secret_is_not_shown(endpoint: str):
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL") as found:
        Store("s3://bucket", {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint})
    assert "Planted" not in found.value.message


def test_white_space_around_a_setting_does_not_count(faults: Faults):
    faults.objects["/bucket/a"] = b"content"
    with serve(faults) as url:
        environ = {**CREDENTIALS, "AWS_ENDPOINT_URL": url, "AWS_SESSION_TOKEN": "token"}
        store = Store("s3://bucket", {name: f" {value}\n" for name, value in environ.items()})
        assert store.get("a") == b"content"


def test_a_ca_file_that_holds_no_certificate_is_named(tmp_path: Path):
    broken = tmp_path / "ca.crt"
    broken.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"ca\.crt"):
        Store("s3://bucket", {**CREDENTIALS, "R1_S3_CA_FILE": str(broken)})


def _self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "tls.crt", folder / "tls.key"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context
