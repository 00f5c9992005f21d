# SPDX-License-Identifier: Apache-2.0
"""kubectl as a user has it, against the cluster of the demo."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 300


class KubectlError(RuntimeError):
    """kubectl ended with an error; the text is its own."""


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl.

    Attributes:
        binary: path or name of kubectl.
        kubeconfig: its configuration; None: the user's.
        context: of the configuration; None: the current one.
    """

    binary: str
    kubeconfig: Path | None
    context: str | None = None

    def run(
        self, *arguments: str, stdin: str | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> str:
        """Standard output.

        Raises:
            KubectlError: with what kubectl said.
            subprocess.TimeoutExpired: after `timeout` seconds.
        """
        environment = dict(os.environ)
        if self.kubeconfig is not None:
            environment["KUBECONFIG"] = str(self.kubeconfig)
        chosen = [] if self.context is None else ["--context", self.context]
        done = subprocess.run(
            [self.binary, *chosen, *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """`kubectl … -o json`, parsed."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any], namespace: str | None = None) -> None:
        """`kubectl apply -f -` of the objects."""
        where = ("-n", namespace) if namespace else ()
        listing = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", *where, "-f", "-", stdin=json.dumps(listing))
