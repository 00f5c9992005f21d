# SPDX-License-Identifier: Apache-2.0
"""An S3 bucket below one prefix: the only way in which stages reach storage.

Every call has timeouts, a bounded number of tries with jitter, and raises
StageErrors that name the remedy. `put_if` is the only writer of pointers:
minio's own put_object sends If-None-Match as user metadata and succeeds.
"""

import hashlib
import logging
import os
import threading
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

import httpx
from minio import Minio
from minio.credentials import StaticProvider
from minio.deleteobjects import DeleteObject
from minio.helpers import MIN_PART_SIZE

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, StageError, disk_full, is_disk_full
from r1reward_trainer.storage import transport
from r1reward_trainer.storage.errors import (
    FAILURES,
    Kind,
    NotFound,
    PreconditionFailed,
    StoreFull,
    answer_error,
    classify,
    classify_answer,
    error_code,
    fault_of,
    stage_error,
)
from r1reward_trainer.storage.identity import WorkloadIdentity
from r1reward_trainer.storage.multipart import Stopped, Upload, end_uploads
from r1reward_trainer.storage.patience import Patience, Tries
from r1reward_trainer.storage.settings import store_settings

__all__ = ["NotFound", "ObjectInfo", "PreconditionFailed", "Stopped", "Store"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

PART_BYTES = 32 * 2**20
MULTIPART_FROM_BYTES = PART_BYTES
RECOMPUTE = "delete the stage's manifest.json to compute it anew"
"""What helps against an output that is not what its manifest says."""
_PUT_IF_SECONDS = 300
_LARGEST_PUT_IF_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ObjectInfo:
    """One object.

    Attributes:
        key: relative to the Store's root.
        bytes: its size.
        etag: as S3 gives it, without quotes.
    """

    key: str
    bytes: int
    etag: str


class Store:
    """Objects below `s3://bucket/prefix`; keys are relative to it. Thread-safe.

    Args:
        uri: the root.
        environ: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
            AWS_SESSION_TOKEN (or workload identity when there is no key), R1_S3_CA_FILE.
        patience: with a store that does not answer.
        told: is told, in words, what has not worked for a while and is still tried; None once
            it works again.

    Raises:
        ConfigurationError: when one of them makes no sense.
    """

    def __init__(
        self,
        uri: str,
        environ: Mapping[str, str],
        patience: Patience | None = None,
        told: Callable[[str | None], None] = lambda fault: None,
    ) -> None:
        parts = urlsplit(uri)
        if parts.scheme != "s3" or not parts.netloc:
            raise _denied(f"storage URI {uri!r} must look like s3://bucket/prefix")
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        # urlsplit cuts white space out, and minio sends no such folder.
        if set("\t\r\n") & set(uri) or {".", ".."} & set(self._prefix.split("/")):
            raise _denied(
                f"storage URI {uri!r} must have no folder . or .., no tab and no line break"
            )
        settings = store_settings(environ)
        self._endpoint = settings.endpoint
        self._patience = patience or Patience()
        self._told = told
        trust = transport.trust(environ.get("R1_S3_CA_FILE"))
        pool = transport.Pool(trust)
        if settings.key is not None:
            key, secret, session = settings.key
            provider = StaticProvider(key, secret, session or None)
        else:
            provider = WorkloadIdentity(settings.region, trust)
        try:
            self._client = Minio(
                settings.host,
                secure=settings.secure,
                region=settings.region,
                http_client=pool,
                credentials=provider,
            )
        except ValueError as error:  # minio knows of Amazon's host names what we need not
            raise _denied(f"AWS_ENDPOINT_URL {settings.endpoint!r}: {error}") from error
        self._http = httpx.Client(
            verify=trust,
            trust_env=False,  # the same way as minio's calls: by no proxy
            timeout=httpx.Timeout(transport.READ_SECONDS, connect=transport.CONNECT_SECONDS),
        )

    @classmethod
    def from_env(cls, uri: str, told: Callable[[str | None], None] = lambda fault: None) -> Self:
        """The Store of an s3:// URI with the pod's credentials."""
        return cls(uri, os.environ, told=told)

    def uri(self, key: str = "") -> str:
        """`s3://bucket/prefix/key`."""
        return f"s3://{self._bucket}/{self._full(key)}".rstrip("/")

    def get(self, key: str) -> bytes:
        """An object's content.

        Raises:
            NotFound: when there is none.
        """
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """An object's content and the ETag of just this content, for `put_if`.

        Raises:
            NotFound: when there is none.
        """

        def call() -> tuple[bytes, str]:
            response = self._client.get_object(self._bucket, self._full(key))
            return b"".join(transport.body(response)), _etag(response.headers)

        return self._try("get", key, call)

    def get_file(
        self, key: str, path: Path, sha256: str | None = None, remedy: str = RECOMPUTE
    ) -> None:
        """Downloads to a file, which appears whole or not at all.

        Args:
            key: the object.
            path: the file; folders are made.
            sha256: expected digest (hexadecimal); None: not checked.
            remedy: what to do when it differs.

        Raises:
            NotFound: when there is no object.
            ConfigurationError: ArtifactCorrupt, when the digest differs.
            ProgramError: DiskFull.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")

        def call() -> str:
            digest = hashlib.sha256()
            with part.open("wb") as file:
                for chunk in self._stream(key):
                    digest.update(chunk)
                    file.write(chunk)
            return digest.hexdigest()

        try:
            found = self._try("get", key, call)
            if sha256 is not None:
                self._expect_digest(key, found, sha256, remedy)
            part.replace(path)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(f"{self.uri(key)} does not fit into {path.parent}") from error
            raise
        finally:
            part.unlink(missing_ok=True)

    def verify(self, key: str, sha256: str) -> None:
        """Reads an object and compares its digest; nothing is kept.

        Raises:
            NotFound: when there is no object.
            ConfigurationError: ArtifactCorrupt, when the digest differs.
        """

        def call() -> str:
            digest = hashlib.sha256()
            for chunk in self._stream(key):
                digest.update(chunk)
            return digest.hexdigest()

        self._expect_digest(key, self._try("get", key, call), sha256, RECOMPUTE)

    def _stream(self, key: str) -> Iterator[bytes]:
        return transport.body(self._client.get_object(self._bucket, self._full(key)))

    def _expect_digest(self, key: str, found: str, expected: str, remedy: str) -> None:
        if found != expected:
            raise ConfigurationError(
                Reason.ARTIFACT_CORRUPT,
                f"{self.uri(key)} has sha256 {found}, its manifest says {expected}; {remedy}",
            )

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, replacing what is there."""
        self._put(key, data)

    def _put(self, key: str, data: bytes, stop: threading.Event | None = None) -> None:
        whole = max(len(data), MIN_PART_SIZE)  # else minio uploads more than 5 MiB in parts

        def call() -> None:
            if stop is not None and stop.is_set():
                raise Stopped
            self._client.put_object(
                self._bucket, self._full(key), BytesIO(data), len(data), part_size=whole
            )

        self._try("put", key, call)

    def put_file(self, path: Path, key: str, stop: threading.Event | None = None) -> None:
        """Uploads a file, replacing what is there; large files in parts.

        Args:
            path: the file.
            key: the object.
            stop: once set, nothing more is sent.

        Raises:
            Stopped: `stop` was set before the object was there.
        """
        if path.stat().st_size < MULTIPART_FROM_BYTES:
            self._put(key, path.read_bytes(), stop)
            return

        def try_(call: Callable[[], T]) -> T:
            return self._try("put", key, call)

        Upload(self._client, self._bucket, self._full(key), path, PART_BYTES, try_, stop).run()

    def end_uploads(self, prefix: str) -> None:
        """Ends what killed processes have left half uploaded to keys that begin with a prefix.

        It is in nobody's way and is not even listed, but paid for: what fails is only logged.
        """
        try:
            end_uploads(self._client, self._bucket, self._full(prefix))
        except (*FAILURES, ValueError) as error:
            logger.warning("unfinished uploads to %s stay: %s", self.uri(prefix), _brief(error))

    def head(self, key: str) -> ObjectInfo | None:
        """Size and ETag, None when there is no object."""

        def call() -> ObjectInfo:
            found = self._client.stat_object(self._bucket, self._full(key))
            return ObjectInfo(key, found.size or 0, (found.etag or "").strip('"'))

        try:
            return self._try("head", key, call)
        except NotFound:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with the prefix, in the order of keys.

        The prefix is compared as text: end it with "/" to mean a folder.
        """
        whole = self._full(prefix)
        if not prefix and self._prefix:
            whole += "/"
        cut = len(self._prefix) + 1 if self._prefix else 0

        def call() -> list[ObjectInfo]:
            found = self._client.list_objects(self._bucket, prefix=whole, recursive=True)
            return [
                ObjectInfo((o.object_name or "")[cut:], o.size or 0, (o.etag or "").strip('"'))
                for o in found
                if not o.is_dir
            ]

        yield from self._try("list", prefix, call)

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        try:
            self._try(
                "delete", key, lambda: self._client.remove_object(self._bucket, self._full(key))
            )
        except NotFound:
            return

    def delete_prefix(self, prefix: str) -> None:
        """Removes all objects of a folder."""
        folder = prefix.rstrip("/") + "/"

        def call() -> None:
            doomed = [DeleteObject(self._full(o.key)) for o in self.list(folder)]
            for error in self._client.remove_objects(self._bucket, doomed):
                # It comes without a status; a code that nobody knows may pass.
                kind = classify_answer(500, error.code)
                if kind.passes:
                    raise ConnectionError(f"{error.code}: {error.name}")
                if kind is not Kind.ABSENT:
                    place = f"s3://{self._bucket}/{error.name} at {self._endpoint}"
                    raise answer_error(kind, error.code, "delete", place)

        self._try("delete", folder, call)

    def presign_get(self, key: str, expires: int) -> str:
        """A URL that reads the object without credentials, for so many seconds."""
        return self._try(
            "presign",
            key,
            lambda: self._client.presigned_get_object(
                self._bucket, self._full(key), expires=timedelta(seconds=expires)
            ),
        )

    def presign_put(self, key: str, expires: int) -> str:
        """A URL that writes the object without credentials, for so many seconds."""
        return self._try(
            "presign",
            key,
            lambda: self._client.presigned_put_object(
                self._bucket, self._full(key), expires=timedelta(seconds=expires)
            ),
        )

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        """Writes an object if nobody else has: the one way in which pointers are written.

        Args:
            key: the object.
            data: at most 16 MiB; must differ between writers, so that a lost answer can be
                told from a lost race.
            etag: None: only if there is no object. Else: only if it still has this ETag.

        Returns:
            The new ETag.

        Raises:
            PreconditionFailed: somebody else has written.
        """
        if len(data) > _LARGEST_PUT_IF_BYTES:
            raise ValueError(f"{key} has {len(data)} bytes, limit {_LARGEST_PUT_IF_BYTES}")
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        unanswered = False
        with self._tries() as tries:
            while True:
                try:
                    return self._put_if_once(key, data, condition)
                except PreconditionFailed:
                    # A try whose answer was lost may have been ours.
                    if unanswered and (ours := self._etag_if_equal(key, data)):
                        return ours
                    raise
                except FAILURES as error:
                    unanswered = True
                    self._await(tries, error, "conditional put", key)

    def check_access(self) -> None:
        """Probes put, get, list, both conditional puts and delete below the root.

        Raises:
            ConfigurationError: StorageDenied, ConditionalPutUnsupported.
            InfrastructureError: StorageUnavailable.
        """
        folder = f".access-check/{uuid.uuid4().hex}"
        plain, guarded = f"{folder}/plain", f"{folder}/guarded"
        try:
            self._probe(folder, plain, guarded)
        except StageError:
            with suppress(StageError):  # the first fault is the one to tell
                self.delete_prefix(folder)
            raise
        for key in (plain, guarded):
            self.delete(key)

    def _probe(self, folder: str, plain: str, guarded: str) -> None:
        self.put(plain, b"probe")
        if self.get(plain) != b"probe" or plain not in [o.key for o in self.list(folder)]:
            raise _denied(
                f"{self.uri(plain)}: what was written cannot be read back"
                + ("; this store takes no prefix with //" if "//" in self._prefix else "")
            )
        first = self.put_if(guarded, b"1", None)
        self._expect_refusal(guarded, None, "If-None-Match")
        try:
            self.put_if(guarded, b"2", first)
        except PreconditionFailed as error:
            raise self._unsupported(guarded, f"If-Match refuses the ETag {first!r}") from error
        self._expect_refusal(guarded, first, "If-Match")

    def _expect_refusal(self, key: str, etag: str | None, header: str) -> None:
        try:
            self.put_if(key, uuid.uuid4().bytes, etag)
        except PreconditionFailed:
            return
        raise self._unsupported(key, f"{header} was ignored")

    def _unsupported(self, key: str, fault: str) -> StageError:
        return answer_error(Kind.UNSUPPORTED, fault, "conditional put", self.uri(key))

    def _put_if_once(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        url = self._client.get_presigned_url(
            "PUT", self._bucket, self._full(key), expires=timedelta(seconds=_PUT_IF_SECONDS)
        )
        answer = self._http.put(url, content=data, headers=condition)
        if answer.status_code == 200:
            return _etag(answer.headers)
        code = error_code(answer.text)
        kind = classify_answer(answer.status_code, code)
        if kind is Kind.PRECONDITION or (kind is Kind.ABSENT and "If-Match" in condition):
            raise PreconditionFailed(key)
        fault = code or f"HTTP {answer.status_code}"
        if kind is Kind.FULL:
            raise StoreFull(fault)
        if kind is Kind.TRANSIENT:
            raise ConnectionError(fault)
        raise answer_error(kind, fault, "conditional put", f"{self.uri(key)} at {self._endpoint}")

    def _etag_if_equal(self, key: str, data: bytes) -> str | None:
        try:
            found, etag = self.get_tagged(key)
        except NotFound:
            return None
        return etag if found == data else None

    def _try(self, what: str, key: str, call: Callable[[], T]) -> T:
        with self._tries() as tries:
            while True:
                try:
                    return call()
                except FAILURES as error:
                    if classify(error) is Kind.ABSENT and what in ("get", "head", "delete"):
                        raise NotFound(key) from error
                    self._await(tries, error, what, key)
                except (ValueError, ElementTree.ParseError) as error:
                    # minio raises nothing more specific without credentials, or for an answer
                    # that is not S3's.
                    raise _denied(
                        f"{what} {self.uri(key)} at {self._endpoint}: {error}; check "
                        "AWS_ENDPOINT_URL and the credentials of spec.storage"
                    ) from error

    @contextmanager
    def _tries(self) -> Iterator[Tries]:
        """The tries of one call. Whatever its end, nobody waits for it any more."""
        tries = self._patience.begin()
        try:
            yield tries
        finally:
            if tries.lasts:
                self._told(None)

    def _await(self, tries: Tries, error: Exception, what: str, key: str) -> None:
        """Waits before the next try, or raises what the failure means for the stage."""
        if classify(error).passes:
            logger.warning("%s %s: %s; trying again", what, self.uri(key), _brief(error))
            if tries.lasts:
                self._told(
                    f"storage {self._endpoint} does not work: {fault_of(error)}; it is tried "
                    f"for {self._patience.seconds:g} s"
                )
            if tries.again():
                return
        place = f"{self.uri(key)} at {self._endpoint}"
        raise stage_error(error, what, place, self._patience.seconds) from error

    def _full(self, key: str) -> str:
        """The key in the bucket; a "/" at the end stays, as it means a folder."""
        parts = [part for part in (self._prefix, key.lstrip("/")) if part]
        return "/".join(parts)


def _etag(headers: Mapping[str, str]) -> str:
    return headers.get("etag", "").strip('"')


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _denied(message: str) -> ConfigurationError:
    return ConfigurationError(Reason.STORAGE_DENIED, message)
