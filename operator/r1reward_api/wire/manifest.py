# SPDX-License-Identifier: Apache-2.0
"""`manifest.json`: what a stage left in storage.

Lies at `stages/<stage>/<key>/manifest.json` under the namespace's root, created
by If-None-Match by whoever finishes first; others adopt it. All paths in it
are relative to `stages/<stage>/<key>/`.
"""

import hashlib
from typing import Annotated

from pydantic import Field

from r1reward_api.base import ApiModel
from r1reward_api.canonical import canonical_json
from r1reward_api.constants import Stage

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class FileEntry(ApiModel):
    """One file of an output."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    """Relative to the output's path."""
    bytes: Annotated[int, Field(ge=0)]
    """Size."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the content."""


class Output(ApiModel):
    """A named output: a folder of files."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    """`runs/<job uid>/attempt-<n>/<output>`, relative to the stage's key."""
    digest: Digest
    """`tree_digest` of the files: the same content has the same digest anywhere."""
    bytes: Annotated[int, Field(ge=0)]
    """Sum of the files' sizes."""
    rows: int | None = None
    """Rows, where it is a table."""
    files: list[FileEntry]
    """Every file."""


class StageManifest(ApiModel):
    """What one stage left in storage."""

    version: int = 1
    """Of this format."""
    stage: Stage
    """The stage."""
    key: Annotated[str, Field(max_length=80)]
    """The stage's key."""
    outputs: dict[str, Output]
    """By name; see `r1reward_api.stages` for each stage's names."""
    summary: dict[str, str] = {}
    """Figures for status.summary."""
    created_by: str
    """UID of the job that computed it."""
    attempt: int
    """The attempt that computed it."""
    created_at: str
    """RFC 3339."""


def tree_digest(files: list[FileEntry]) -> str:
    """Digest of a folder's content, whatever its place and the order of listing.

    Returns:
        `sha256:<hex>` over the canonical JSON of sorted [path, bytes, sha256].
    """
    listing = sorted([f.path, f.bytes, f.sha256] for f in files)
    return "sha256:" + hashlib.sha256(canonical_json(listing)).hexdigest()
