# SPDX-License-Identifier: Apache-2.0
"""What the soak reads from the object store, against a real one."""

import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from minio import Minio

from r1reward_trainer.storage.checkpoint import Checkpoints
from r1reward_trainer.storage.s3 import Store
from tests.e2e.leaks import leaks, objects
from tests.e2e.soak.storage import committed, unfinished_uploads

STATUS: dict[str, Any] = {
    "stages": [
        {"name": "prepare", "key": "a"},
        {"name": "sft", "key": "b"},
        {"name": "rl"},
    ]
}


@pytest.fixture
def store(s3: dict[str, str]) -> Store:
    """An empty prefix of the bucket."""
    return Store(f"s3://{s3['R1_BUCKET']}/{uuid.uuid4().hex}", s3)


def test_the_committed_step_is_that_of_the_pointer_and_not_of_what_was_only_uploaded(store: Store):
    folder = "stages/sft/b/runs/the-uid/checkpoints"
    assert committed(store, "the-uid", STATUS) == {}
    checkpoints = Checkpoints(store, "stages/sft/b/runs/the-uid", 1, 2, "writer", {})
    checkpoints.claim()
    assert committed(store, "the-uid", STATUS) == {folder: 0}
    for step in (10, 20):
        checkpoints.commit(step, [])
    store.put(f"{folder}/attempt-1/step-00000030/manifest.json", b"{}")
    assert committed(store, "the-uid", STATUS) == {folder: 20}
    assert committed(store, "another-uid", STATUS) == {}


def test_an_upload_that_nobody_finished_is_found_until_it_is_aborted(s3: dict[str, str]):
    address = urlsplit(s3["AWS_ENDPOINT_URL"]).netloc
    client = Minio(
        address,
        access_key=s3["AWS_ACCESS_KEY_ID"],
        secret_key=s3["AWS_SECRET_ACCESS_KEY"],
        region=s3["AWS_REGION"],
        secure=False,
    )
    bucket, key = s3["R1_BUCKET"], f"{uuid.uuid4().hex}/half"
    upload = client._create_multipart_upload(bucket, key, {})
    assert key in unfinished_uploads(s3, bucket)
    client._abort_multipart_upload(bucket, key, upload)
    assert key not in unfinished_uploads(s3, bucket)


def test_a_secret_in_an_object_is_found_with_the_objects_key(store: Store):
    store.put("jobs/a/logs/rl/attempt-1/trainer-0.log", b"token=planted-0123")
    store.put("jobs/a/report/report.html", b"<html>nothing</html>")
    found = leaks({"the token": "planted-0123"}, objects(store))
    assert found == ["jobs/a/logs/rl/attempt-1/trainer-0.log: the token"]
