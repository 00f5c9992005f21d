# SPDX-License-Identifier: Apache-2.0
"""Code of other training frameworks, as they released it, without what it depends on.

Wheels are installed without dependencies into a folder of their own, pinned by hash, and
imported from there. Modules that the code under test only names at import are stood in for;
what it calls is real.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.cluster.layout import REPOSITORY, cache

INSTALL_SECONDS = 300


@dataclass(frozen=True)
class Release:
    """A wheel on PyPI.

    Attributes:
        requirement: name and version.
        sha256: of the wheel for CPython 3.11 on x86-64 Linux.
        bare: packages of it whose `__init__` is left out, for it would import everything.
        names: what those packages would have imported, and the code under test only names.
        absent: top-level modules that it names and does not call here.
    """

    requirement: str
    sha256: str
    bare: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


OPENRLHF = Release(
    "openrlhf==0.11.2",
    "c969d70db03a70724c3d8a5a01186c6e0728bce624fb3dff95e39b5396acefa6",
    bare=("openrlhf", "openrlhf.utils"),
)
VERL = Release(
    "verl==0.9.1",
    "db6e6f2a8d9d5808d9ec32d357a42319fdc6967df688ff9d9810050f49bfdd14",
    bare=(
        "verl",
        "verl.trainer",
        "verl.trainer.ppo",
        "verl.experimental",
        "verl.experimental.reward_loop",
    ),
    names=("verl.DataProto",),
    absent=("omegaconf", "ray", "tensordict", "vllm"),
)
TRL = Release(
    "trl==1.16.0",
    "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396",
    absent=("accelerate", "datasets", "vllm", "wandb"),
)


def installed(release: Release) -> Path:
    """The folder of an installed release; it is complete or it is not there."""
    content = hashlib.sha256(f"{release.requirement} {release.sha256}".encode()).hexdigest()[:16]
    name = release.requirement.partition("==")[0]
    folder = cache() / "released" / f"{name}-{content}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _install(release, folder)
    return folder


def _install(release: Release, folder: Path) -> None:
    (uv,) = sorted(REPOSITORY.glob(".tools/uv-*/bin/uv"))[-1:]
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        requirements = Path(work) / "requirements.txt"
        requirements.write_text(f"{release.requirement} --hash=sha256:{release.sha256}\n")
        target = Path(work) / "target"
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", "--target", target]
        subprocess.run([*command, "-r", requirements], check=True, timeout=INSTALL_SECONDS)
        shutil.move(target, folder)


@contextmanager
def released(release: Release) -> Iterator[None]:
    """Within, the release's modules can be imported; afterwards none of it is left."""
    folder = installed(release)
    roots = {release.requirement.partition("==")[0], *release.absent}
    finder = _Absent(release.absent)
    before = _taken_out(roots)
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, finder)
    try:
        for package in release.bare:
            module = ModuleType(package)
            module.__path__ = [str(folder.joinpath(*package.split(".")))]
            sys.modules[package] = module
        for name in release.names:
            package, _, attribute = name.rpartition(".")
            setattr(sys.modules[package], attribute, type(attribute, (_Named,), {}))
        with warnings.catch_warnings():  # about versions of what it does not use here
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(finder)
        _taken_out(roots)
        sys.modules.update(before)


def _taken_out(roots: set[str]) -> dict[str, ModuleType]:
    """All modules below these, which are then as if they had never been imported."""
    names = [name for name in sys.modules if name.partition(".")[0] in roots]
    return {name: sys.modules.pop(name) for name in names}


class _Named:
    """What stands for any class, function or decorator of a module that is not there."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, decorated: Any) -> Any:
        return decorated


class _AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "1000.0"
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Named,), {})


class _Absent:
    """Finds modules that are not installed, and gives empty ones."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in self._names:
            return None
        return ModuleSpec(name, self, is_package=True)  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
