# SPDX-License-Identifier: Apache-2.0
"""A disk that is soon full, for one program alone."""

import os
from pathlib import Path


def small_disk(folder: Path, size: str) -> tuple[str, ...]:
    """The beginning of a command line whose program finds a disk of a size at a folder.

    It is a tmpfs in a mount namespace of the program's own, and gone with it.
    """
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    script = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'
    return ("unshare", *namespaces, "sh", "-c", script, "sh", size, str(folder))
