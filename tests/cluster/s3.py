# SPDX-License-Identifier: Apache-2.0
"""VersityGW: an S3 server over a folder, with one bucket."""

import secrets
from dataclasses import dataclass
from pathlib import Path

import minio
import urllib3

from tests.cluster import versions
from tests.cluster.binaries import binary
from tests.cluster.files import write
from tests.cluster.pki import Pair
from tests.cluster.ports import answers
from tests.cluster.processes import Daemon, Supervisor, wait_until

REGION = "us-east-1"
READY_DEADLINE = 30.0


@dataclass(frozen=True)
class Variant:
    """What a server has that the usual one has not.

    Attributes:
        within: a program that runs it, such as one that gives it a disk of its own.
        at: folder of its objects.
        options: of the gateway.
        posix: of its backend.
        tls: its certificate, and the authority's that signed it.
    """

    within: tuple[str, ...] = ()
    at: Path | None = None
    options: tuple[str, ...] = ()
    posix: tuple[str, ...] = ()
    tls: tuple[Pair, Path] | None = None


def start(
    supervisor: Supervisor, host: str, port: int, bucket: str, variant: Variant | None = None
) -> dict[str, str]:
    """Starts the server (or leaves it alone when it runs) and makes the bucket.

    Returns:
        The environment with which a client reaches it; also kept at `s3.env`
        below the supervisor's folder.
    """
    folder = supervisor.folder
    variant = variant or Variant()
    objects = variant.at or folder / "s3"
    objects.mkdir(parents=True, exist_ok=True)
    scheme = "https" if variant.tls else "http"
    environment = _environment(folder / "s3.env", f"{scheme}://{host}:{port}", bucket)
    supervisor.start(
        Daemon(
            "versitygw",
            (
                *variant.within,
                str(binary(versions.VERSITYGW, "versitygw")),
                f"--port={host}:{port}",
                f"--region={REGION}",
                "--quiet",
                *_tls_options(variant),
                *variant.options,
                "posix",
                *variant.posix,
                str(objects),
            ),
            {
                "ROOT_ACCESS_KEY": environment["AWS_ACCESS_KEY_ID"],
                "ROOT_SECRET_KEY": environment["AWS_SECRET_ACCESS_KEY"],
            },
        )
    )
    wait_until("S3 answers", lambda: answers(host, port), READY_DEADLINE, supervisor.check)
    client = minio.Minio(
        f"{host}:{port}",
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
        region=REGION,
        secure=variant.tls is not None,
        http_client=urllib3.PoolManager(ca_certs=str(variant.tls[1])) if variant.tls else None,
    )
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    return environment


def _tls_options(variant: Variant) -> list[str]:
    if variant.tls is None:
        return []
    pair, _ = variant.tls
    return [f"--cert={pair.certificate}", f"--key={pair.key}"]


def _environment(path: Path, endpoint: str, bucket: str) -> dict[str, str]:
    kept = read_environment(path) if path.exists() else {}
    environment = {
        "AWS_ACCESS_KEY_ID": kept.get("AWS_ACCESS_KEY_ID") or secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": kept.get("AWS_SECRET_ACCESS_KEY") or secrets.token_hex(20),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGION,
        "R1_BUCKET": bucket,
    }
    write(path, "".join(f"{name}={value}\n" for name, value in environment.items()))
    return environment


def read_environment(path: Path) -> dict[str, str]:
    """Reads `NAME=value` lines."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
