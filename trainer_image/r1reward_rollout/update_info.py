# SPDX-License-Identifier: Apache-2.0
"""The wire form of a weight update: what ``prepare`` and ``/update_weights`` carry.

{"version": "3-120-0a1b2c3d4e5f",
 "files": [{"url": "https://…?X-Amz-…", "sha256": "…64 hex…", "bytes": 123}],
 "tensors": {"lm_head.weight": {"dtype": "F32", "shape": [8, 4]}}}      (or null)
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_FILES = 4096


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Dtype in safetensors' words (``F32``, ``BF16``) and shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file to fetch; the URL's query is a credential and is never logged or compared."""

    url: str
    sha256: str
    bytes: int

    @property
    def location(self) -> str:
        """The URL without query and fragment."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class UpdateInfo:
    """A whole set of weights; ``tensors`` is what the publisher says it wrote, if it says so."""

    version: str
    files: tuple[FileSpec, ...]
    tensors: Mapping[str, TensorSpec] | None

    @property
    def key(self) -> str:
        """The same for the same content at the same place, whatever the URLs' signatures."""
        content = sorted((file.location, file.sha256, file.bytes) for file in self.files)
        return hashlib.sha256(json.dumps([self.version, content]).encode()).hexdigest()


def _file(value: Any, where: str) -> FileSpec:
    if not isinstance(value, dict) or set(value) != {"url", "sha256", "bytes"}:
        raise ValueError(f"{where} must have exactly the fields url, sha256 and bytes")
    url, sha256, size = value["url"], value["sha256"], value["bytes"]
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{where}.url must be an http or https URL")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{where}.sha256 must be 64 lower-case hex digits")
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise ValueError(f"{where}.bytes must be a positive integer, not {size!r}")
    return FileSpec(url, sha256, size)


def _tensor(name: str, value: Any) -> TensorSpec:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape"}:
        raise ValueError(f"tensors[{name!r}] must have exactly the fields dtype and shape")
    dtype, shape = value["dtype"], value["shape"]
    if not isinstance(dtype, str):
        raise ValueError(f"tensors[{name!r}].dtype must be a string, not {dtype!r}")
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise ValueError(f"tensors[{name!r}].shape must be a list of integers, not {shape!r}")
    return TensorSpec(dtype, tuple(shape))


def parse_update_info(value: Any) -> UpdateInfo:
    """The checked form of an update; raises ValueError naming the field."""
    if not isinstance(value, dict) or set(value) - {"tensors"} != {"version", "files"}:
        raise ValueError("a weight update must have the fields version, files and tensors")
    version, files, tensors = value["version"], value["files"], value.get("tensors")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f"version must match {_VERSION.pattern}, not {version!r}")
    if not isinstance(files, list) or not 0 < len(files) <= _MAX_FILES:
        raise ValueError(f"files must be a list of 1 to {_MAX_FILES} files")
    if tensors is not None and not isinstance(tensors, dict):
        raise ValueError("tensors must be an object or null")
    return UpdateInfo(
        version=version,
        files=tuple(_file(item, f"files[{index}]") for index, item in enumerate(files)),
        tensors=None
        if tensors is None
        else {name: _tensor(name, spec) for name, spec in tensors.items()},
    )
