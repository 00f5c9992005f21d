# SPDX-License-Identifier: Apache-2.0
"""The cgroups of the pods, in every hierarchy of the machine (v1, hybrid or v2)."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.cluster.layout import CGROUP


def hierarchies() -> list[Path]:
    """Mount points of all cgroup hierarchies."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(fields[1]) for fields in mounts if fields[2] in {"cgroup", "cgroup2"}]


def processes() -> set[int]:
    """Every process of every pod."""
    found: set[int] = set()
    for group in _groups():
        with suppress(OSError):
            found.update(int(line) for line in (group / "cgroup.procs").read_text().split())
    return found


def container(identity: str) -> set[int]:
    """The processes of one container.

    Args:
        identity: the runtime's, 64 hexadecimal digits, as a pod's status has it after
            `containerd://`.
    """
    for group in _groups():
        if group.name == identity:
            with suppress(OSError):
                found = {int(line) for line in (group / "cgroup.procs").read_text().split()}
                if found:
                    return found
    return set()


def remove() -> None:
    """Removes the pods' cgroups, which must be empty of processes."""
    for group in _groups():
        with suppress(FileNotFoundError):
            group.rmdir()


def _groups() -> Iterator[Path]:
    """Innermost first."""
    for hierarchy in hierarchies():
        root = hierarchy / CGROUP
        if root.is_dir():
            inner = [path for path in root.rglob("*") if path.is_dir()]
            yield from sorted(inner, key=lambda path: len(path.parts), reverse=True)
            yield root
