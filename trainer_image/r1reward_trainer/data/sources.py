# SPDX-License-Identifier: Apache-2.0
"""Where rows come from: Parquet, JSONL, JSON and CSV files behind a URI with `*`."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from r1reward_api.canonical import canonical_json
from r1reward_api.reasons import Reason
from r1reward_api.resource.job import PreferenceSource
from r1reward_trainer.data import files
from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.registry import importer_of
from r1reward_trainer.data.media import IMAGE_SUFFIXES, Beside
from r1reward_trainer.data.objects import Objects
from r1reward_trainer.data.schema import BadRecord, Media, Position, Record
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.s3 import ObjectInfo

OpenStore = Callable[[str], Objects]


@dataclass(frozen=True)
class SourceFile:
    """One object with rows.

    Attributes:
        store: rooted at the file's folder.
        name: key below that folder.
        bytes, etag: as S3 lists it.
    """

    store: Objects
    name: str
    bytes: int
    etag: str

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.store.uri(self.name)


@dataclass(frozen=True)
class Source:
    """Files of one format.

    Attributes:
        files: in the order of their keys.
        importer: of the format.
        image_prefix: what stands for a file's folder in its rows.
    """

    files: list[SourceFile]
    importer: Importer
    image_prefix: str | None = None


Reading = Iterator[tuple[Position, Record | BadRecord, Media]]


def find_source(field: str, spec: PreferenceSource, open_store: OpenStore) -> Source:
    """A field's source with its files.

    Raises:
        ConfigurationError: when there are no files, or its settings contradict each other.
    """
    importer = importer_of(spec.format, spec.columns)
    return Source(find_files(field, spec.uri, open_store), importer, spec.image_prefix)


@dataclass(frozen=True)
class Place:
    """Where a URI's files are looked for.

    Attributes:
        folder: the deepest one without `*`, as a URI.
        start: what the keys of its files begin with.
        pattern: what they must match.
    """

    folder: str
    start: str
    pattern: re.Pattern[str]


def place_of(uri: str) -> Place:
    """Reads a URI, or a path of this machine.

    A `*` matches any letters but `/`. A URI that ends with `/` means every Parquet and JSONL
    file of that folder.
    """
    scheme = "s3://" if uri.startswith("s3://") else ""
    bucket, path = "", uri
    if scheme:
        bucket, _, path = uri.removeprefix(scheme).partition("/")
    head, star, tail = path.partition("*")
    folder, slash, start = head.rpartition("/")
    wanted = start + star + tail
    if not wanted:
        expression = r"[^/]*(\.parquet|\.jsonl)"
    else:
        expression = "[^/]*".join(re.escape(part) for part in wanted.split("*"))
    root = f"{scheme}{bucket}/{folder}".rstrip("/") if scheme else folder + slash
    return Place(root, start, re.compile(expression))


def _listed(field: str, uri: str, start: str, store: Objects) -> Iterator[ObjectInfo]:
    """Objects of a folder; a refusal, as of a bucket that is not there, names the field."""
    try:
        yield from store.list(start)
    except ConfigurationError as error:
        raise ConfigurationError(error.reason, f"{field} {uri}: {error.message}") from error


def find_files(field: str, uri: str, open_store: OpenStore) -> list[SourceFile]:
    """The files behind a field's URI, in the order of their keys.

    Raises:
        ConfigurationError: when there is none, or one has an unknown suffix.
    """
    place = place_of(uri)
    store = open_store(place.folder)
    found = [
        SourceFile(store, info.key, info.bytes, info.etag)
        for info in _listed(field, uri, place.start, store)
        if place.pattern.fullmatch(info.key)
    ]
    if not found:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"{field}: no object matches {uri}; `*` stands for any letters but `/` within a folder",
        )
    for file in found:
        if not file.name.endswith(files.SUFFIXES):
            raise ConfigurationError(
                Reason.INVALID_DATA,
                f"{field}: {file.uri} is none of {', '.join(files.SUFFIXES)}; write the suffix "
                "into the URI, such as /*.parquet",
            )
    return found


def sources_digest(found: list[SourceFile]) -> str:
    """Digest of the content behind the files as S3 vouches for it: names, sizes and ETags.

    Images beside files are part of it, since rows may refer to them.
    """
    listing = [[file.uri, file.bytes, file.etag] for file in found]
    folders = {file.store.uri(): file.store for file in found}
    for store in folders.values():
        listing += [
            [store.uri(info.key), info.bytes, info.etag]
            for info in store.list("")
            if info.key.lower().endswith(IMAGE_SUFFIXES)
        ]
    return "sha256:" + hashlib.sha256(canonical_json(sorted(listing))).hexdigest()


def read_file(source: Source, file: SourceFile, scratch: Path) -> Reading:
    """The records of a file in their order, without holding them all in memory.

    Args:
        source: the file's source.
        file: one of its files.
        scratch: where it is downloaded to; deleted afterwards.

    Yields:
        Position, the raw record or why it cannot be read, and what lies beside the file.

    Raises:
        ConfigurationError: when the file cannot be read at all.
    """
    local = scratch / f"source{Path(file.name).suffix}"
    file.store.get_file(file.name, local)
    try:
        beside = Beside(file.store, file.name, source.image_prefix)
        importer = source.importer
        for line, record in files.read(local, file.uri, importer.columns, importer.required):
            yield Position(file.uri, line), record, beside
    finally:
        local.unlink(missing_ok=True)
