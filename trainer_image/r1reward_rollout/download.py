# SPDX-License-Identifier: Apache-2.0
"""Fetching weight files into a content-addressed folder.

A file is named by its checksum and appears by rename only after it was verified, so what a
name promises is what the file holds, and a shard that did not change is not fetched again.
"""

import contextlib
import hashlib
import logging
import os
import random
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from r1reward_rollout.update_info import FileSpec

logger = logging.getLogger("vllm.r1reward.download")

_CHUNK = 1 << 20
_SOCKET_TIMEOUT = 30.0
_ATTEMPTS = 5
_FIRST_BACKOFF = 0.2
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNSIGNED_STATUS = frozenset({401, 403})


class DownloadError(RuntimeError):
    """A file could not be had as promised; the message names it without its signature."""


class NotServed(DownloadError):
    """The store was away, or did not take the signature: a URL signed anew may be answered."""


class _Transient(Exception):
    """Worth another try."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A presigned URL answers itself; a redirect could only lead somewhere unsigned."""

    def redirect_request(
        self, req: object, fp: object, code: object, msg: object, headers: object, newurl: object
    ) -> None:
        return None


def opener(environ: Mapping[str, str]) -> urllib.request.OpenerDirector:
    """An HTTP(S) opener that trusts R1_S3_CA_FILE, if there is one, instead of the system's
    roots. The variable is always set; the file is there when the job's Secret has a ca.crt."""
    ca_file = environ.get("R1_S3_CA_FILE")
    context = ssl.create_default_context(
        cafile=ca_file if ca_file and Path(ca_file).exists() else None
    )
    return urllib.request.build_opener(_NoRedirect(), urllib.request.HTTPSHandler(context=context))


def path_of(file: FileSpec, folder: Path) -> Path:
    """Where the verified file lies."""
    return folder / f"{file.sha256}.safetensors"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch_once(
    http: urllib.request.OpenerDirector,
    file: FileSpec,
    target: Path,
    deadline: float,
    cancelled: Callable[[], bool],
) -> None:
    digest, received = hashlib.sha256(), 0
    try:
        with (
            http.open(file.url, timeout=_SOCKET_TIMEOUT) as response,
            target.open("wb") as out,
        ):
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                if received > file.bytes:
                    raise DownloadError(f"{file.location} is longer than {file.bytes} bytes")
                if time.monotonic() > deadline or cancelled():
                    raise DownloadError(f"{file.location}: out of time, or no longer wanted")
                digest.update(chunk)
                out.write(chunk)
            # http.client gives out a body that a lost connection cut short without an error
            if response.length:
                raise _Transient(f"{file.location}: {response.length} bytes did not come")
    except urllib.error.HTTPError as error:
        kind = DownloadError
        if error.code in _RETRIED_STATUS:
            kind = _Transient
        elif error.code in _UNSIGNED_STATUS:
            kind = NotServed
        raise kind(f"{file.location} answered HTTP {error.code}") from None
    except OSError as error:  # includes URLError, timeouts and resets
        raise _Transient(f"{file.location}: {type(error).__name__}: {error}") from None
    except Exception as error:
        if isinstance(error, DownloadError):
            raise
        # http.client's own errors: a body shorter than its Content-Length, a bad status line
        raise _Transient(f"{file.location}: {type(error).__name__}") from None
    if received != file.bytes:
        raise DownloadError(f"{file.location} has {received} bytes instead of {file.bytes}")
    if digest.hexdigest() != file.sha256:
        raise DownloadError(
            f"{file.location} has sha256 {digest.hexdigest()} instead of {file.sha256}"
        )


def fetch(
    http: urllib.request.OpenerDirector,
    file: FileSpec,
    folder: Path,
    deadline: float,
    cancelled: Callable[[], bool],
) -> Path:
    """Make sure that the verified file is in the folder; ``deadline`` is by time.monotonic().

    Connection errors and 5xx are retried with backoff; a wrong size or checksum is not, as the
    store would only say the same again. Raises :class:`DownloadError`, :class:`NotServed` where
    it may say something else in a while.
    """
    path = path_of(file, folder)
    if path.is_file() and path.stat().st_size == file.bytes and _sha256(path) == file.sha256:
        return path
    partial = path.with_suffix(".partial")
    try:
        for attempt in range(_ATTEMPTS):
            try:
                _fetch_once(http, file, partial, deadline, cancelled)
                partial.replace(path)
                return path
            except _Transient as error:
                pause = _FIRST_BACKOFF * 2**attempt * random.uniform(0.5, 1.0)
                if attempt + 1 == _ATTEMPTS or time.monotonic() + pause > deadline or cancelled():
                    raise NotServed(f"{error} (attempt {attempt + 1})") from None
                logger.warning("retrying: %s", error)
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def prune(folder: Path, keep: Collection[str]) -> None:
    """Remove every file but those whose checksum is in ``keep``."""
    for path in folder.iterdir():
        if path.stem not in keep or path.suffix != ".safetensors":
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def require_space(folder: Path, files: Collection[FileSpec]) -> None:
    """Raise :class:`DownloadError` when the folder's disk cannot hold the missing files."""
    missing = sum(file.bytes for file in files if not path_of(file, folder).is_file())
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise DownloadError(
            f"{folder} has {free} bytes free but the weights need {missing}: "
            "give the rollout pods a larger cache volume"
        )


def cache_folder(environ: Mapping[str, str], rank: int) -> Path:
    """The rank's own folder: ranks of one pod verify and prune independently."""
    root = Path(environ.get("R1_WEIGHTS_CACHE") or "/tmp/r1reward-weights")
    folder = root / f"rank-{rank}"
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)  # noqa: PTH101  Path.chmod follows the same call
    return folder
