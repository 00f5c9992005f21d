# SPDX-License-Identifier: Apache-2.0
"""A store that refuses what the job needs: prepare says so, before anything is held."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from r1reward_api.constants import ExitCode, Stage
from r1reward_api.reasons import Reason
from r1reward_api.wire.termination import FailureClass
from tests.cluster.pki import Authority
from tests.cluster.s3 import Variant
from tests.integration.conftest import StartS3
from tests.integration.s3_client import add_user, allow, client, unfinished_uploads
from tests.integration.stages.harness import Workplace
from tests.integration.stages.pod import End, Pod

KEY = "planted-access-key"
SECRET = "planted-secret-key"
ALL = ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject")


@pytest.fixture(scope="module")
def owner(start_s3: StartS3, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a server whose users have rights."""
    users = tmp_path_factory.mktemp("users")
    return start_s3(Variant(options=(f"--iam-dir={users}",)))


@pytest.fixture(scope="module")
def user(owner: dict[str, str]) -> dict[str, str]:
    return add_user(owner, KEY, SECRET)


def prepared(
    pod: Pod,
    folder: Path,
    environ: Mapping[str, str],
    bucket: str = "",
    model: str = "",
    rows: Sequence[str] = (),
) -> End:
    """The end of a prepare stage whose rows and model are nowhere."""
    root = f"s3://{bucket or environ['R1_BUCKET']}/root"
    spec = {
        "runtimeRef": {"name": "cpu"},
        "model": {"uri": model or f"{root}/model"},
        "data": {
            "preferences": [{"uri": uri} for uri in rows or [f"{root}/rows/*.parquet"]],
            "maxPromptTokens": 64,
        },
        "evaluate": {"maxNewTokens": 32},
    }
    return pod.run(Workplace(environ, folder, root).config(spec, Stage.PREPARE), environ)


def refused(end: End, reason: Reason, *words: str) -> None:
    """Final at once, with words that help, and without a secret."""
    assert end.code == ExitCode.CONFIGURATION
    assert end.message.failure_class is FailureClass.CONFIGURATION
    assert end.message.reason == reason
    for word in words:
        assert word in (end.message.message or "")
    assert end.waited == 0
    assert KEY not in end.text
    assert SECRET not in end.text


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_keys_that_are_wrong(
    pod: Pod, tmp_path: Path, owner: dict[str, str], user: dict[str, str], wrong: str
):
    allow(owner, KEY, ALL)
    environ = {**user, wrong: f"{user[wrong]}-of-yesterday"}
    refused(
        prepared(pod, tmp_path, environ),
        Reason.STORAGE_DENIED,
        "s3://r1reward/root/",
        "spec.storage.secretRef",
    )


def test_a_bucket_that_is_not_there(pod: Pod, tmp_path: Path, owner: dict[str, str]):
    refused(
        prepared(pod, tmp_path, owner, "no-such-bucket"),
        Reason.STORAGE_DENIED,
        "s3://no-such-bucket/root/",
        "NoSuchBucket",
        "the bucket's name",
    )


def test_rows_in_a_bucket_that_is_not_there_are_named_by_their_field(
    pod: Pod, tmp_path: Path, workplace: Workplace, model_uri: str
):
    workplace.open_store(f"{workplace.root}/rows").put("part.jsonl", b"{}")
    lost = "s3://no-such-bucket/rows/*.parquet"
    refused(
        prepared(
            pod, tmp_path, workplace.environ, model=model_uri,
            rows=[f"{workplace.root}/rows/*.jsonl", lost],
        ),
        Reason.STORAGE_DENIED,
        f"data.preferences[1].uri {lost}: ",
        "NoSuchBucket",
        "check the bucket's name",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "call"),
    [
        ("s3:PutObject", "put s3://"),
        ("s3:GetObject", "get s3://"),
        ("s3:ListBucket", "list s3://"),
        ("s3:DeleteObject", "delete s3://"),
    ],
)
def test_a_right_that_is_missing_is_named_by_what_it_was_needed_for(
    pod: Pod,
    tmp_path: Path,
    owner: dict[str, str],
    user: dict[str, str],
    missing: str,
    call: str,
):
    allow(owner, KEY, [right for right in ALL if right != missing])
    end = prepared(pod, tmp_path, user)
    refused(end, Reason.STORAGE_DENIED, call, "AccessDenied", "(get, put, delete, list)")
    left = [o.object_name or "" for o in client(owner).list_objects("r1reward", recursive=True)]
    assert [key for key in left if ".access-check" not in key] == []
    if missing == "s3:PutObject":
        assert left == []
    assert unfinished_uploads(owner) == []


def test_a_store_that_ignores_the_condition_of_a_put(pod: Pod, tmp_path: Path, start_s3: StartS3):
    environ = start_s3(Variant(posix=("--nometa",)))
    refused(
        prepared(pod, tmp_path, environ),
        Reason.CONDITIONAL_PUT_UNSUPPORTED,
        "If-None-Match was ignored",
        "must support conditional writes",
    )
    assert list(client(environ).list_objects("r1reward", recursive=True)) == []


def test_a_certificate_is_trusted_when_its_authority_is_in_the_secret(
    pod: Pod, tmp_path: Path, start_s3: StartS3
):
    authority = Authority(tmp_path / "pki")
    pair = authority.server("s3", ["127.0.0.1"])
    environ = start_s3(Variant(tls=(pair, authority.pair.certificate)))
    refused(
        prepared(pod, tmp_path, {**environ, "R1_S3_CA_FILE": str(tmp_path / "absent")}),
        Reason.STORAGE_DENIED,
        "certificate is not trusted",
        "put its CA as ca.crt into the Secret of spec.storage.secretRef",
    )
    trusted = {**environ, "R1_S3_CA_FILE": str(authority.pair.certificate)}
    # Storage is in order: what is missing now is the model.
    refused(prepared(pod, tmp_path, trusted), Reason.INVALID_MODEL, "no model files")
