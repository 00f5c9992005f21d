# SPDX-License-Identifier: Apache-2.0
"""Rollout servers without a model, each a process, to be killed, frozen and replaced.

What one answers follows from the prompt's seed and from the version of its weights, which
has the digest of their bytes: so two runs that log the same rewards have sampled the same
prompts with the same weights.
"""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.layout import REPOSITORY
from tests.unit.rollout.protocol_server import Loop, ProtocolServer

ANSWERING_SECONDS = 0.2
"""A prompt stays so long, so that a kill finds some."""
MISFIT = "WrongWeights: lm_head.weight is F32[319, 64] instead of F32[320, 64]"


class StandIn(ProtocolServer):
    """Samples among given answers, and writes down whatever it is asked but its identity."""

    answers: Sequence[Sequence[int]] = ()
    journal: Path = Path(os.devnull)
    serves_another_model: bool = False

    def sampled(self, body: dict[str, Any]) -> list[int]:
        seed = body["sampling_params"]["seed"]
        self.write({"seed": seed, "version": self.version})
        digest = hashlib.sha256(f"{seed}/{self.version}".encode()).digest()
        return list(self.answers[digest[0] % len(self.answers)])

    def write(self, line: dict[str, object]) -> None:
        with self.journal.open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def _answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        if target != "/r1/identity":
            self.write({"path": target})
        return await super()._answer(method, target, headers, body)

    def _prepare(self, method: str, argument: str) -> dict[str, Any]:
        if self.serves_another_model and method == "r1_prepare_weights":
            version = json.loads(argument)["version"]
            if version.split("-")[1] != "0":
                self.misfits[version] = MISFIT
        return super()._prepare(method, argument)

    async def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        await asyncio.sleep(ANSWERING_SECONDS)
        return await super()._generate(body)


@dataclass
class Pod:
    """A pod's place: its address, and the process that is there now.

    Attributes:
        pod_uid: proved to whoever asks; a restarted container keeps it.
        serves_another_model: no version after the first fits.
    """

    folder: Path
    address: str
    port: int
    answers: Sequence[Sequence[int]]
    token: str
    job_uid: str
    pod_uid: str
    serves_another_model: bool = False
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def journal(self) -> Path:
        """Lines of what it was asked and of what it sampled, over all restarts."""
        return self.folder / f"{self.pod_uid}.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def start(self) -> "Pod":
        """With the base weights, and until it listens."""
        options = {
            "address": self.address,
            "port": self.port,
            "token": self.token,
            "job_uid": self.job_uid,
            "pod_uid": self.pod_uid,
            "answers": self.answers,
            "journal": str(self.journal),
            "serves_another_model": self.serves_another_model,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.trainer.stand_in", json.dumps(options)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/trainer_image"},
            stdout=subprocess.PIPE,
        )
        self.stack.callback(self.kill)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"
        return self

    def kill(self) -> None:
        """At once, frozen or not."""
        self.process.kill()
        self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def _serve(options: dict[str, Any]) -> None:
    server = StandIn(Loop(), options["address"], options["port"])
    for name, value in options.items():
        setattr(server, name, Path(value) if name == "journal" else value)
    server.start()
    print("up", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
