# SPDX-License-Identifier: Apache-2.0
"""`make bench-digits`: what RL gains on the example task, over 3 seeds, beside a control.

Every figure comes out of R1RewardJobs that the operator runs on the cluster. For each seed
(weights, rows, hold-out, labelled images, order, sampling) there are two jobs: the demo's
chain, and the control that puts RL's updates into more SFT on the same chains. Both are
evaluated on the same held-out rows. Note that RL sees gold labels of images that SFT never
saw; that is what it is for, but it is not a comparison at equal labels.
"""

import argparse
import io
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from r1reward_trainer.evaluation.bootstrap import bootstrap_gain, bootstrap_mean
from r1reward_trainer.evaluation.figures import Interval
from r1reward_trainer.evaluation.metrics import accuracy_by_row
from r1reward_trainer.evaluation.predictions import FIGURE_COLUMNS, judgements
from r1reward_trainer.storage.s3 import Store
from tests.digits.upload import upload
from tests.e2e import digits_job, watch
from tests.e2e.connection import Connection, connect
from tests.e2e.demo import versions
from tests.e2e.waiting import wait_for

SEEDS = (0, 1, 2)
RESULT = Path("docs/results/digits.json")
JOB_SECONDS = 3600
BOOTSTRAP_SAMPLES = 2000

ByRow = Mapping[str, NDArray[np.float64]]

LEFT_OUT = ("byRow", "clusters")
"""What a seed's entry in the result does not repeat: a value a row."""
"""Accuracy by row of each model."""


def main() -> int:
    """Runs the jobs that have not run yet and writes the result; 1 when RL is not better than SFT
    in every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    connection = connect()
    digits_job.install_operator(connection.kubectl)
    digits_job.prepare_namespace(connection.kubectl, connection.storage)
    runs = [run_seed(connection, seed) for seed in arguments.seeds]
    result = summarise([r["byRow"] for r in runs], [r["clusters"] for r in runs])
    result |= {
        "command": "make bench-digits",
        "task": "digits",
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "versions": versions(),
        "control": f"SFT on the same chains for {control_steps()} instead of {sft_steps()} steps: "
        "as many sequences more as RL trains on",
        "seeds": [
            {name: value for name, value in run.items() if name not in LEFT_OUT} for run in runs
        ],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write("\n".join(lines(result)) + f"\n{arguments.out}\n")
    return int(not better_in_all(result, "rl over sft"))


def better_in_all(result: Mapping[str, Any], gain: str) -> bool:
    """Whether a gain is above 0 in each seed."""
    return min(result["gains"][gain]["bySeed"]) > 0


def sft_steps() -> int:
    """Optimizer steps of the demo's SFT."""
    return digits_job.digits_job()["spec"]["sft"]["maxSteps"]


def control_steps() -> int:
    """SFT's steps and RL's trained sequences as further SFT steps."""
    spec = digits_job.digits_job()["spec"]
    sequences = spec["rl"]["maxSteps"] * spec["rl"]["sampling"]["promptsPerStep"]
    return sft_steps() + -(-sequences // spec["sft"]["batchSize"])


def job_of(seed: int, control: bool) -> dict[str, Any]:
    """The R1RewardJob of one run."""
    sections: dict[str, Any] = {
        "data": {"holdout": {"seed": seed}, "seed": seed},
        "annotate": {"seed": seed},
        "sft": {"seed": seed},
        "rl": {"seed": seed},
        "evaluate": {"seed": seed},
    }
    if control:
        sections |= {
            "rl": None,
            "sft": {"seed": seed, "maxSteps": control_steps()},
            "evaluate": {"seed": seed, "models": ["SFT"]},
        }
    name = f"bench-{seed}-control" if control else f"bench-{seed}"
    return digits_job.digits_job(name, **sections)


def run_seed(connection: Connection, seed: int) -> dict[str, Any]:
    """Both jobs of a seed, one after the other: they share two CPU cores, and the cache."""
    upload(connection.storage, seed)
    chain, control = (run_job(connection, job_of(seed, of)) for of in (False, True))
    by_row = {**chain["byRow"], "control": control["byRow"]["sft"]}
    return {
        "seed": seed,
        "rows": len(by_row["rl"]),
        "accuracy": {name: float(values.mean()) for name, values in by_row.items()},
        "figures": {
            **chain["report"]["models"],
            "control": control["report"]["models"]["sft"],
        },
        "seconds": {"chain": chain["seconds"], "control": control["seconds"]},
        "byRow": by_row,
        "clusters": chain["clusters"],
    }


def run_job(connection: Connection, job: dict[str, Any]) -> dict[str, Any]:
    """Applies a job, waits for its end and reads its report and predictions.

    Raises:
        RuntimeError: with its condition, when it has failed.
    """
    kubectl, name = connection.kubectl, job["metadata"]["name"]
    kubectl.apply(job, namespace=digits_job.NAMESPACE)
    begin = time.monotonic()

    def ended() -> dict[str, Any] | None:
        status = kubectl.json("-n", digits_job.NAMESPACE, "get", "r1rj", name).get("status", {})
        over = watch.is_true(status, "Succeeded") or watch.is_true(status, "Failed")
        return status if over else None

    status = wait_for(f"the end of {name}", ended, JOB_SECONDS)
    if not watch.is_true(status, "Succeeded"):
        raise RuntimeError(f"{name}: {watch.condition(status, 'Failed')}")
    sys.stdout.write(f"{name} after {time.monotonic() - begin:.0f} s: {status['summary']}\n")
    report = json.loads(_read(connection, status, "report", "report.json"))
    table = pq.read_table(
        io.BytesIO(_read(connection, status, "predictions", "predictions.parquet")),
        columns=list(FIGURE_COLUMNS),
    )
    judged = {model: judgements(table, model) for model in report["models"]}
    return {
        "report": report,
        "byRow": {model: accuracy_by_row(of) for model, of in judged.items()},
        "clusters": next(iter(judged.values())).clusters,
        "seconds": {
            stage["name"]: round(
                (
                    watch.parse_time(stage["completionTime"]) - watch.parse_time(stage["startTime"])
                ).total_seconds()
            )
            for stage in status["stages"]
            if not stage.get("cacheHit")
        },
    }


def _read(connection: Connection, status: Mapping[str, Any], artifact: str, name: str) -> bytes:
    found = next(a for a in status["artifacts"] if a["name"] == artifact)
    return Store(found["uri"], connection.storage).get(name)


def summarise(runs: Sequence[ByRow], clusters: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """Figures over all seeds: rows pooled, gains paired by row. The intervals are about rows,
    those about one image together; how far seeds differ shows in `bySeed`.

    Args:
        runs: of each seed, accuracy by row of base, sft, rl and control.
        clusters: of each seed, by row, what the row hangs together with.
    """
    places = [of + seed * (1 << 32) for seed, of in enumerate(clusters)]
    together = np.concatenate(places)
    pooled = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
    pairs = (("rl", "sft"), ("rl", "control"), ("control", "sft"))
    return {
        "accuracy": {
            name: Interval.of(bootstrap_mean(values, together, BOOTSTRAP_SAMPLES, 0)).to_wire()
            for name, values in pooled.items()
        },
        "gains": {
            f"{after} over {before}": {
                **Interval.of(
                    bootstrap_gain(pooled[after], pooled[before], together, BOOTSTRAP_SAMPLES, 0)
                ).to_wire(),
                "bySeed": [float(run[after].mean() - run[before].mean()) for run in runs],
            }
            for after, before in pairs
        },
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The result as a short table."""
    shown = [
        f"  {name:18} {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
        for name, value in result["accuracy"].items()
    ]
    return shown + [
        f"  {name:18} {value['value']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]  by seed "
        + ", ".join(f"{gain:+.3f}" for gain in value["bySeed"])
        for name, value in result["gains"].items()
    ]


if __name__ == "__main__":
    sys.exit(main())
