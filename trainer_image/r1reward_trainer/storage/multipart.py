# SPDX-License-Identifier: Apache-2.0
"""Large files in parts: each part is tried again by itself, and a failed upload is ended.

minio's own fput_object sends the whole file again for one lost part, and leaves the
upload in the bucket, unseen and paid for, when the store is away as it gives up.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from minio import Minio
from minio.datatypes import Part
from minio.error import S3Error

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import InfrastructureError
from r1reward_trainer.storage.errors import FAILURES

logger = logging.getLogger(__name__)

PARALLEL_PARTS = 3
UPLOADS = 3
"""So often a file is begun anew when somebody else ends its upload."""

_ENDED = frozenset({"NoSuchUpload", "InvalidPart"})
"""What S3 says of an upload that somebody has ended; of its parts, while that goes on."""


class Stopped(Exception):
    """The upload was told to stop; nothing of it is left."""


class _Ended(Exception):
    """Somebody else has ended the upload: to send the same again would not help."""


class Try(Protocol):
    """Calls until it succeeds, or raises the StageError of the last failure."""

    def __call__(self, call: Callable[[], Any]) -> Any:
        """Returns what the call returned."""
        ...


class Upload:
    """One file on its way to one object.

    Args:
        client: of the store.
        bucket, key: where to.
        path: what.
        part_bytes: of each part but the last; so much is held in memory a part in flight.
        try_: runs each call.
        stop: once set, no further part is sent.
    """

    def __init__(
        self,
        client: Minio,
        bucket: str,
        key: str,
        path: Path,
        part_bytes: int,
        try_: Try,
        stop: threading.Event | None = None,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._path = path
        self._part_bytes = part_bytes
        self._try = try_
        self._stop = stop or threading.Event()
        self._begun = False

    def run(self) -> None:
        """Uploads the file. What fails half way is ended; where the store is away for that too,
        the run's next attempt ends it (`end_uploads`).

        An upload that somebody else ends, such as a rule of the bucket's or a clean-up, is begun
        anew at once.

        Raises:
            StageError: of the first call that failed for good.
            Stopped: `stop` was set.
        """
        for _ in range(UPLOADS):
            try:
                return self._once()
            except _Ended:
                logger.warning("upload to %s was ended by somebody else", self._key)
        raise InfrastructureError(
            Reason.STORAGE_UNAVAILABLE,
            f"put s3://{self._bucket}/{self._key}: {UPLOADS} uploads in a row were ended by "
            "somebody else; look for what aborts multipart uploads of this bucket: a lifecycle "
            "rule, or a clean-up job",
        )

    def _once(self) -> None:
        upload = self._try(self._begin)
        try:
            self._fill(upload)
        except BaseException:
            try:
                self._client._abort_multipart_upload(self._bucket, self._key, upload)
            except FAILURES as error:
                logger.warning("upload to %s is left unfinished: %s", self._key, error)
            raise

    def _begin(self) -> str:
        if self._stop.is_set():
            raise Stopped
        if self._begun:  # the answer to the try before was lost, maybe not the upload
            end_uploads(self._client, self._bucket, self._key)
        self._begun = True
        return self._client._create_multipart_upload(self._bucket, self._key, {})

    def _fill(self, upload: str) -> None:
        size = self._path.stat().st_size

        def put(number: int) -> Part:
            with self._path.open("rb") as file:
                file.seek((number - 1) * self._part_bytes)
                data = file.read(self._part_bytes)
            return Part(number, self._try(lambda: self._put(upload, number, data)))

        with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
            parts = list(pool.map(put, range(1, -(-size // self._part_bytes) + 1)))
        self._try(lambda: self._complete(upload, parts, size))

    def _put(self, upload: str, number: int, data: bytes) -> str:
        if self._stop.is_set():
            raise Stopped
        try:
            return self._client._upload_part(self._bucket, self._key, data, None, upload, number)
        except FAILURES as error:
            if self._is_ended(upload):
                raise _Ended(upload) from error
            raise

    def _is_ended(self, upload: str) -> bool:
        """Asked after any failure: a server may close the connection on a part of an upload that
        is gone before it has said so."""
        try:
            self._client._list_parts(self._bucket, self._key, upload, max_parts=1)
        except FAILURES as error:
            return isinstance(error, S3Error) and error.code == "NoSuchUpload"
        return False

    def _complete(self, upload: str, parts: list[Part], size: int) -> None:
        try:
            done = self._client._complete_multipart_upload(self._bucket, self._key, upload, parts)
        except S3Error as error:
            # Gone: the answer to an earlier try was lost, or somebody has ended the upload.
            if error.code == "NoSuchUpload" and self._size() == size:
                return
            if error.code in _ENDED:
                raise _Ended(upload) from error
            raise
        if done.etag is None:  # S3 may answer 200 and report an error in the body
            raise ConnectionError("the parts were not put together")

    def _size(self) -> int | None:
        try:
            return self._client.stat_object(self._bucket, self._key).size
        except S3Error:
            return None


def end_uploads(client: Minio, bucket: str, prefix: str) -> None:
    """Ends the unfinished uploads to keys that begin with a prefix."""
    ended: set[str] = set()
    while True:
        page = client._list_multipart_uploads(bucket, prefix=prefix)
        found = {
            upload.upload_id: upload.object_name
            for upload in page.uploads
            if upload.upload_id and upload.object_name.startswith(prefix)
        }
        for upload_id in found.keys() - ended:
            try:
                client._abort_multipart_upload(bucket, found[upload_id], upload_id)
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise
        if not page.is_truncated or found.keys() <= ended:
            return
        ended |= found.keys()
