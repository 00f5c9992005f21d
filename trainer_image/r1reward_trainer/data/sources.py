# SPDX-License-Identifier: Apache-2.0
"""Where rows come from: Parquet and JSONL objects behind an s3:// URI with `*`."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from r1reward_api.canonical import canonical_json
from r1reward_api.reasons import Reason
from r1reward_api.wire.rows import ANNOTATION_COLUMNS, PREFERENCE_COLUMNS
from r1reward_trainer.data.schema import (
    BadReason,
    BadRecord,
    Position,
    ReadImage,
    Record,
)
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.s3 import NotFound, ObjectInfo, Store

SUFFIXES = (".parquet", ".jsonl")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_LINE_BYTES = 256 * 2**20
"""Of a JSONL line, images included."""
MAX_IMAGE_BYTES = 64 * 2**20
"""Of an image that lies beside a JSONL file."""
MAX_PATH_BYTES = 500
MAX_NAME_BYTES = 255
"""Of each part of a path: stores on a file system refuse longer ones."""
REQUIRED_COLUMNS = tuple(name for name in PREFERENCE_COLUMNS if name != "source")
_SHOWN_CHARACTERS = 300
_BATCH_ROWS = 64
_CACHED_IMAGES = 8


@dataclass(frozen=True)
class SourceFile:
    """One object with rows.

    Attributes:
        store: rooted at the file's folder.
        name: key below that folder.
        bytes, etag: as S3 lists it.
    """

    store: Store
    name: str
    bytes: int
    etag: str

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.store.uri(self.name)


RecordOrFault = Record | BadRecord
Reading = Iterator[tuple[Position, RecordOrFault, ReadImage]]


def folder_and_pattern(uri: str) -> tuple[str, re.Pattern[str]]:
    """The deepest folder without `*`, and what its keys must match.

    A `*` matches any letters but `/`. A URI that ends with `/` means every Parquet and JSONL
    file of that folder.
    """
    place = uri.removeprefix("s3://")
    bucket, _, path = place.partition("/")
    head, star, tail = path.partition("*")
    folder, _, start = head.rpartition("/")
    pattern = start + star + tail
    if not pattern:
        expression = r"[^/]*(\.parquet|\.jsonl)"
    else:
        expression = "[^/]*".join(re.escape(part) for part in pattern.split("*"))
    return f"s3://{bucket}/{folder}".rstrip("/"), re.compile(expression)


def _listed(field: str, uri: str, store: Store) -> Iterator[ObjectInfo]:
    """All objects of a folder; a refusal, as of a bucket that is not there, names the field."""
    try:
        yield from store.list("")
    except ConfigurationError as error:
        raise ConfigurationError(error.reason, f"{field} {uri}: {error.message}") from error


def find_files(field: str, uri: str, open_store: Callable[[str], Store]) -> list[SourceFile]:
    """The files behind a field's URI, in the order of their keys.

    Raises:
        ConfigurationError: when there is none, or one is neither Parquet nor JSONL.
    """
    folder, pattern = folder_and_pattern(uri)
    store = open_store(folder)
    files = [
        SourceFile(store, found.key, found.bytes, found.etag)
        for found in _listed(field, uri, store)
        if pattern.fullmatch(found.key)
    ]
    if not files:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"{field}: no object matches {uri}; `*` stands for any letters but `/` within a folder",
        )
    for file in files:
        if not file.name.endswith(SUFFIXES):
            raise ConfigurationError(
                Reason.INVALID_DATA,
                f"{field}: {file.uri} is neither .parquet nor .jsonl; write the suffix into the "
                "URI, such as /*.parquet",
            )
    return files


def sources_digest(files: list[SourceFile]) -> str:
    """Digest of the content behind the files as S3 vouches for it: names, sizes and ETags.

    Images beside JSONL files are part of it, since rows may refer to them.
    """
    listing = [[file.uri, file.bytes, file.etag] for file in files]
    folders = {file.store.uri(): file.store for file in files if file.name.endswith(".jsonl")}
    for store in folders.values():
        listing += [
            [store.uri(found.key), found.bytes, found.etag]
            for found in store.list("")
            if found.key.lower().endswith(IMAGE_SUFFIXES)
        ]
    return "sha256:" + hashlib.sha256(canonical_json(sorted(listing))).hexdigest()


def read_file(file: SourceFile, scratch: Path) -> Reading:
    """The records of a file in their order, without holding them all in memory.

    Args:
        file: Parquet or JSONL.
        scratch: where it is downloaded to; deleted afterwards.

    Yields:
        Position, the record or why it cannot be read, and how to read its relative images.

    Raises:
        ConfigurationError: when a Parquet file cannot be read.
    """
    local = scratch / f"source{Path(file.name).suffix}"
    file.store.get_file(file.name, local)
    try:
        records = _parquet if file.name.endswith(".parquet") else _jsonl
        read_image = _image_reader(file)
        for line, record in enumerate(records(local, file.uri), start=1):
            yield Position(file.uri, line), record, read_image
    finally:
        local.unlink(missing_ok=True)


def _parquet(path: Path, uri: str) -> Iterator[RecordOrFault]:
    wanted = [*PREFERENCE_COLUMNS, *ANNOTATION_COLUMNS]
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if absent := [name for name in REQUIRED_COLUMNS if name not in names]:
                fault = BadRecord(
                    BadReason.MISSING_FIELD,
                    f"the file has no column {', '.join(absent)}; its columns are "
                    f"{', '.join(names)[:_SHOWN_CHARACTERS]}",
                )
                yield from repeat(fault, file.metadata.num_rows)
                return
            columns = [name for name in wanted if name in names]
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"{uri} cannot be read as Parquet: {str(error)[:_SHOWN_CHARACTERS]}; write it anew",
        ) from error


def _jsonl(path: Path, uri: str) -> Iterator[RecordOrFault]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                raise ConfigurationError(
                    Reason.INVALID_DATA,
                    f"{uri} has a line of more than {MAX_LINE_BYTES} bytes; "
                    "is it JSONL, with one object a line?",
                )
            yield _json_object(line)


def _json_object(line: bytes) -> RecordOrFault:
    if not line.strip():
        return BadRecord(BadReason.NOT_JSON, "the line is empty")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRecord(BadReason.NOT_JSON, f"{type(error).__name__}: {error}"[:200])
    if not isinstance(value, dict):
        return BadRecord(BadReason.NOT_JSON, f"{type(value).__name__} instead of an object")
    return value


def _image_reader(file: SourceFile) -> ReadImage:
    folder = PurePosixPath(file.name).parent

    @lru_cache(maxsize=_CACHED_IMAGES)  # rows about one image mostly follow each other
    def read(path: str) -> bytes:
        if not _is_relative_path(path):
            shown = ascii(path[:_SHOWN_CHARACTERS])
            raise LookupError(f"{shown} is not a path below the folder of {file.uri}")
        key = (folder / path).as_posix()
        info = file.store.head(key)
        if info is None:
            raise LookupError(f"there is no {file.store.uri(key)}")
        if info.bytes > MAX_IMAGE_BYTES:
            raise LookupError(
                f"{file.store.uri(key)} has {info.bytes} bytes, limit {MAX_IMAGE_BYTES}"
            )
        try:
            return file.store.get(key)
        except NotFound as error:
            raise LookupError(str(error)) from error

    return read


def _is_relative_path(path: str) -> bool:
    if not path.isprintable() or "://" in path or len(path.encode()) > MAX_PATH_BYTES:
        return False
    parts = PurePosixPath(path).parts
    longest = max(len(part.encode()) for part in (*parts, ""))
    return not path.startswith("/") and ".." not in parts and longest <= MAX_NAME_BYTES
