# SPDX-License-Identifier: Apache-2.0
"""What only the owner of an S3 server may do or see."""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from minio import Minio

from tests.cluster import s3, shell, versions
from tests.cluster.binaries import binary


def client(environ: Mapping[str, str]) -> Minio:
    """A client of a server without TLS."""
    return Minio(
        urlsplit(environ["AWS_ENDPOINT_URL"]).netloc,
        access_key=environ["AWS_ACCESS_KEY_ID"],
        secret_key=environ["AWS_SECRET_ACCESS_KEY"],
        region=s3.REGION,
        secure=False,
    )


def unfinished_uploads(environ: Mapping[str, str], prefix: str = "") -> list[str]:
    """Keys that somebody has begun to upload to in parts and neither finished nor given up."""
    page = client(environ)._list_multipart_uploads(environ["R1_BUCKET"], prefix=prefix)
    return [upload.object_name for upload in page.uploads]


def add_user(environ: Mapping[str, str], name: str, secret: str) -> dict[str, str]:
    """A user without any right; gives the environment of its clients."""
    shell.run(
        str(binary(versions.VERSITYGW, "versitygw")),
        "admin",
        f"--access={environ['AWS_ACCESS_KEY_ID']}",
        f"--secret={environ['AWS_SECRET_ACCESS_KEY']}",
        f"--endpoint-url={environ['AWS_ENDPOINT_URL']}",
        "create-user",
        f"--access={name}",
        f"--secret={secret}",
        "--role=user",
    )
    return {**environ, "AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret}


def allow(environ: Mapping[str, str], user: str, actions: Sequence[str]) -> None:
    """Gives a user these rights in the bucket, and no others."""
    bucket = f"arn:aws:s3:::{environ['R1_BUCKET']}"
    of_bucket = [a for a in actions if a.startswith("s3:List")]
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": [user]}, "Action": some, "Resource": [resource]}
        for some, resource in (
            (of_bucket, bucket),
            ([a for a in actions if a not in of_bucket], f"{bucket}/*"),
        )
        if some
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    client(environ).set_bucket_policy(environ["R1_BUCKET"], policy)
