# SPDX-License-Identifier: Apache-2.0
"""A vLLM server as in a rollout pod, and a plain HTTP server as its object store."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.cluster.layout import REPOSITORY
from tests.cluster.ports import free
from tests.cluster.processes import Daemon, Supervisor, wait_until
from tests.integration.rollout.reference import MAX_PIXELS, MIN_PIXELS

TOKEN = "integration-token-0123456789"
JOB_UID = "11111111-2222-3333-4444-555555555555"
POD_UID = "99999999-8888-7777-6666-555555555555"

READY_DEADLINE = 400.0


def install_plugin(target: Path) -> Path:
    """The plug-in as it is in the image: an installed package with its entry point."""
    found = shutil.which("uv") or next(map(str, REPOSITORY.glob(".tools/uv-*/bin/uv")), None)
    assert found, "uv is needed: make env"
    package = REPOSITORY / "trainer_image" / "r1reward_rollout"
    source = target.with_name("r1reward_rollout-source")
    shutil.copytree(package, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg"))
    subprocess.run(
        [
            found,
            *("pip", "install", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--python", sys.executable, "--target", str(target), str(source)),
        ],
        check=True,
    )
    return target


class FolderStorage:
    """A folder behind a static HTTP server; a URL's query stands for a signature."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._port = port

    def put_file(self, path: Path, key: str) -> None:
        target = self.folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)

    def presign_get(self, key: str, expires: int) -> str:
        return (
            f"http://127.0.0.1:{self._port}/{quote(key)}?X-Amz-Expires={expires}&X-Amz-Signature=s"
        )

    def delete(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def object_store(folder: Path) -> Iterator[FolderStorage]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield FolderStorage(folder, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class RolloutServer:
    """`python -m r1reward_rollout` on loopback."""

    supervisor: Supervisor
    daemon: Daemon
    port: int
    routes_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        self.supervisor.start(self.daemon)
        wait_until("vLLM answers", self._healthy, READY_DEADLINE, self.supervisor.check)

    def kill(self) -> None:
        """End it with its engine and workers, at once."""
        for pid in self.supervisor.strays():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.supervisor.stop(self.daemon.name)

    def routes(self) -> list[tuple[str, str]]:
        """Method and path of everything that the app serves."""
        return [(method, path) for method, path in json.loads(self.routes_file.read_text())]

    def _healthy(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        return False


@contextmanager
def rollout_server(
    folder: Path, model: Path, extra_args: Sequence[str] = (), max_num_seqs: int = 8
) -> Iterator[RolloutServer]:
    """A server with everything that the pod template gives it, and further arguments."""
    plugin = install_plugin(folder / "plugin")
    (port,) = free(1)
    config = folder / "rollout.json"
    config.write_text(
        json.dumps(
            {
                "model": str(model),
                "dtype": "float32",
                "maxModelLen": 512,
                "maxImages": 2,
                "minPixels": MIN_PIXELS,
                "maxPixels": MAX_PIXELS,
                "kvCacheBytes": 1 << 26,
                "maxNumSeqs": max_num_seqs,
                "enforceEager": True,
                "host": "127.0.0.1",
                "port": port,
                "extraArgs": [
                    *("--middleware", "tests.integration.rollout.routes.RouteList"),
                    *extra_args,
                ],
            }
        )
    )
    token = folder / "token"
    token.write_text(TOKEN)
    routes_file = folder / "routes.json"
    environment = {
        "PYTHONPATH": f"{plugin}:{REPOSITORY}",
        "R1_ROLLOUT_CONFIG": str(config),
        "R1_TOKEN_FILE": str(token),
        "R1_JOB_UID": JOB_UID,
        "POD_UID": POD_UID,
        "R1_WEIGHTS_CACHE": str(folder / "cache"),
        "R1_LOG_TAIL": str(folder / "tail"),
        "ROUTES_FILE": str(routes_file),
        "HOME": str(folder),
        # what the runtime's rollout template sets where there is no GPU
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    daemon = Daemon("vllm", (sys.executable, "-m", "r1reward_rollout"), environment)
    with Supervisor(folder, tied=True) as supervisor:
        server = RolloutServer(supervisor, daemon, port, routes_file)
        try:
            server.start()
            yield server
        finally:
            server.kill()
