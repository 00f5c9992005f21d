# SPDX-License-Identifier: Apache-2.0
"""`make soak`: an hour of random faults, and a judgement of every job."""

import argparse
import json
import os
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from tests.cluster.versions import FAMILIES
from tests.digits.upload import upload
from tests.e2e import digits_job
from tests.e2e.connection import connect
from tests.e2e.demo import versions
from tests.e2e.kubectl import Kubectl, KubectlError
from tests.e2e.soak import jobs, storage
from tests.e2e.soak.run import Soak, record
from tests.e2e.soak.site import Site, require_local_cluster

NAMESPACE = "r1reward-soak"
RESULT = Path("docs/results/soak.json")


def main() -> int:
    """Runs the soak and writes the result; 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long faults come")
    parser.add_argument("--seed", type=int, help="of faults and jobs; printed when not given")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    require_local_cluster()
    site = Site(connect(), NAMESPACE)
    _say(f"seed {seed}: python -m tests.e2e.soak --minutes {arguments.minutes:g} --seed {seed}")
    began = datetime.now(UTC)
    _prepare(site)
    soak = Soak(site, seed, arguments.minutes * 60, _say)
    try:
        soak.run()
        soak.problems += _left_over(site)
    except BaseException as error:
        soak.problems.append(f"the soak ended early: {type(error).__name__}: {error}")
        raise
    finally:
        result = {
            "command": f"make soak MINUTES={arguments.minutes:g} SEED={seed}",
            "date": began.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": f"{os.cpu_count()} CPUs",
            "versions": versions(),
            "cluster": {f.name: f.version for f in FAMILIES if f.module},
            "seed": seed,
            "minutes": round(soak.elapsed() / 60, 1),
            **summary(soak),
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        _scale_operator(site.kubectl, 1)
    _say(f"\n{len(soak.faults)} faults, {len(soak.entries)} jobs: {arguments.out}")
    for problem in soak.problems:
        _say(f"PROBLEM {problem}")
    return 1 if soak.problems else 0


def summary(soak: Soak) -> dict[str, Any]:
    """What happened; times are seconds since the begin."""
    return {
        "problems": list(soak.problems),
        "faults": [
            {"fault": f.fault, "begin": f.begin, "end": f.end, "job": f.job, "pod": f.pod}
            for f in soak.faults
        ],
        "jobs": [record(e) for e in soak.entries],
    }


def _prepare(site: Site) -> None:
    kubectl, values = site.kubectl, site.connection.storage
    disable_progress_bar()
    digits_job.install_operator(kubectl)
    # Two as users have them, so that there is one to take over.
    _scale_operator(kubectl, 2)
    digits_job.wait_for_operator(kubectl)
    upload(values)
    digits_job.prepare_namespace(kubectl, values)
    kubectl.run("delete", "namespace", site.namespace, "--ignore-not-found", "--timeout=180s")
    digits_job.make_namespace(kubectl, values, site.namespace)
    kubectl.apply(jobs.runtime())


def _scale_operator(kubectl: Kubectl, replicas: int) -> None:
    kubectl.run(
        "-n", digits_job.SYSTEM_NAMESPACE, "scale", "deployment/r1reward-operator",
        f"--replicas={replicas}",
    )  # fmt: skip


def _left_over(site: Site) -> list[str]:
    """What remains when all jobs are gone, in words."""
    values = site.connection.storage
    uploads = storage.unfinished_uploads(values, values["R1_BUCKET"])
    problems = [f"a multipart upload of {key} is left over" for key in uploads]
    try:
        site.kubectl.run("delete", "namespace", site.namespace, "--timeout=180s")
    except KubectlError as error:
        problems.append(f"the namespace cannot be deleted: {error}")
    return problems


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
