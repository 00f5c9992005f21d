# SPDX-License-Identifier: Apache-2.0
"""Base models from the hub (a stub of its HTTP interface on loopback) and from a claim."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import ModelSpec
from r1reward_trainer.data.base_model import check_model, find_model
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.s3 import Store

COMMIT = "c" * 40
FOREIGN = ("modeling_evil.py", "pytorch_model.bin", "figures/plot.json", ".gitattributes")


@pytest.fixture
def hub(model_folder: Path) -> Iterator[str]:
    """A hub with `org/model` (revisions main and v1) and the gated `org/gated`."""
    files = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    files |= dict.fromkeys(FOREIGN, b"must not be taken")

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, send_body: bool) -> None:
            status, headers, body = self._route(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if send_body:
                self.wfile.write(body)

        def _route(self, path: str) -> tuple[int, dict[str, str], bytes]:
            if path.startswith("/api/models/org/gated"):
                return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
            if path.startswith("/api/models/org/model/revision/absent"):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            if path.startswith("/api/models/org/model/tree/"):
                tree = [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(data),
                        "oid": hashlib.sha1(data).hexdigest(),
                    }
                    for name, data in files.items()
                ]
                return 200, {}, json.dumps(tree).encode()
            if path.startswith("/api/models/org/model"):
                info = {
                    "id": "org/model",
                    "sha": COMMIT,
                    "siblings": [{"rfilename": name} for name in files],
                }
                return 200, {}, json.dumps(info).encode()
            name = path.removeprefix(f"/org/model/resolve/{COMMIT}/")
            if name in files:
                etag = hashlib.sha1(files[name]).hexdigest()
                return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}, files[name]
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


PROGRAM = """
import json, sys
from pathlib import Path
from r1reward_api.resource.job import ModelSpec
from r1reward_trainer.data.base_model import find_model
from r1reward_trainer.outcome import StageError

def attempt(uri, revision=None, out=None):
    try:
        found = find_model(ModelSpec(uri=uri, revision=revision), open_store=None)
        if out:
            Path(out).mkdir()
            found.stage(Path(out))
        return [found.digest, found.resolved]
    except StageError as error:
        return [type(error).__name__, error.reason, error.message]

print(json.dumps([attempt(*arguments) for arguments in json.loads(sys.argv[1])]))
"""


def ask_hub(
    endpoint: str, home: Path, calls: list[list[str | None]], token: str = "hf_s3cret\n"
) -> list[list[str]]:
    """Looks models up in a process that knows the hub by its environment, as a pod would."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": token,
        "PYTHONPATH": "operator:trainer_image:.",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(calls)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_of_the_hub_is_pinned_to_its_commit_and_brings_no_code(
    hub: str, tmp_path: Path, model_folder: Path
) -> None:
    out = tmp_path / "out"
    found, gated, absent, unknown = ask_hub(
        hub,
        tmp_path / "home",
        [
            ["hf://org/model", "v1", str(out)],
            ["hf://org/gated"],
            ["hf://org/model", "absent"],
            ["hf://org/nowhere"],
        ],
    )
    assert found == [f"hf:org/model@{COMMIT}", f"hf://org/model@{COMMIT}"]
    assert sorted(p.name for p in out.rglob("*")) == sorted(p.name for p in model_folder.iterdir())
    check_model(out, "hf://org/model", 128)
    assert (gated[:2], "accept its licence" in gated[2]) == (
        ["ConfigurationError", Reason.INVALID_MODEL],
        True,
    )
    assert (absent[1], "'absent' does not exist" in absent[2]) == (Reason.INVALID_MODEL, True)
    assert (unknown[1], "does not exist" in unknown[2]) == (Reason.INVALID_MODEL, True)
    assert "s3cret" not in gated[2] + absent[2] + unknown[2]


def test_a_hub_that_does_not_answer_is_no_fault_of_the_user(tmp_path: Path) -> None:
    (answer,) = ask_hub("http://127.0.0.1:9", tmp_path / "home", [["hf://org/model"]])
    assert (answer[0], "does not answer" in answer[2]) == ("InfrastructureError", True)


def test_a_token_that_no_header_can_hold_is_named_and_not_shown(tmp_path: Path) -> None:
    (answer,) = ask_hub(
        "http://127.0.0.1:9", tmp_path / "home", [["hf://org/model"]], "hf_s3cret\nagain"
    )
    assert answer[0] == "ConfigurationError"
    assert answer[2].startswith("spec.model.tokenSecretRef: the key in the Secret holds a line")
    assert "s3cret" not in answer[2]


def no_store(uri: str) -> Store:
    raise AssertionError(f"{uri} must not be opened")


def test_a_model_in_a_claim_is_taken_by_content(tmp_path: Path, model_folder: Path) -> None:
    folder = tmp_path / "mnt" / "base" / "tiny"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(model_folder)
    spec = ModelSpec(uri="pvc://models/base/tiny")
    found = find_model(spec, no_store, mount=tmp_path / "mnt")
    out = tmp_path / "out"
    out.mkdir()
    found.stage(out)
    assert {p.name for p in out.iterdir()} == {p.name for p in model_folder.iterdir()}
    assert find_model(spec, no_store, mount=tmp_path / "mnt").digest == found.digest

    with pytest.raises(ConfigurationError, match="No such file"):
        find_model(ModelSpec(uri="pvc://models/absent"), no_store, mount=tmp_path / "mnt")
    with pytest.raises(ConfigurationError, match=r"must not contain \.\."):
        find_model(ModelSpec(uri="pvc://models/../etc"), no_store, mount=tmp_path / "mnt")
