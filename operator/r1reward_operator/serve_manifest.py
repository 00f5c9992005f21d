# SPDX-License-Identifier: Apache-2.0
"""`r1reward-operator serve-manifest JOB`: prints what serves a finished job's model.

Here and not in the trainer image, because its pods are those of the operator's builders and it
reads the cluster. It needs no operator: a kubeconfig, or the objects as files, are enough.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from kubernetes import config as kubernetes_config
from pydantic import ValidationError

from r1reward_api.constants import Stage
from r1reward_api.names import serving as serving_name
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import R1RewardRuntimeSpec
from r1reward_api.resource.status import R1RewardJobStatus, StagePhase
from r1reward_api.wire.runconfig import InputRef, JobIdentity, RunConfig
from r1reward_operator.kube.client import KubeClient
from r1reward_operator.kube.errors import ApiError
from r1reward_operator.plan.builders.build import Build
from r1reward_operator.plan.builders.serving import ServingOptions, serving_objects
from r1reward_operator.plan.effective import Refused, effective_runtime
from r1reward_operator.resources import CLUSTERR1REWARDRUNTIMES, R1REWARDJOBS, R1REWARDRUNTIMES

JsonObject = dict[str, Any]
TRAINED = (Stage.RL, Stage.SFT)
"""Stages that make weights, the last first."""


class _Plain(yaml.SafeDumper):
    """Writes what two objects share twice: people read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class CannotServe(Exception):
    """There is nothing to print; the message says why, and what helps."""


def main(arguments: Sequence[str]) -> None:
    """Prints YAML to standard output, or ends with one line that says why not."""
    given = _parser().parse_args(arguments)
    try:
        job, runtime = _from_files(given) if given.files else _from_cluster(given)
        objects = manifest(job, runtime, given)
    except CannotServe as error:
        _end(str(error))
    except (ApiError, kubernetes_config.ConfigException) as error:
        _end(f"the cluster cannot be asked: {error}; give --kubeconfig, or the objects with -f")
    sys.stdout.write(_header(job["metadata"], given))
    yaml.dump_all(objects, sys.stdout, _Plain, sort_keys=False, explicit_start=True, width=100)


def manifest(
    job: JsonObject, runtime: JsonObject, given: argparse.Namespace
) -> list[dict[str, Any]]:
    """The objects that serve a job's model.

    Args:
        job: the R1RewardJob.
        runtime: its runtime.
        given: stage, replicas, token_secret and temperature.

    Raises:
        CannotServe: the job has no such model, or an object is none.
    """
    meta = job["metadata"]
    try:
        spec = R1RewardJobSpec.model_validate(job["spec"])
        status = R1RewardJobStatus.model_validate(job.get("status") or {})
        template = R1RewardRuntimeSpec.model_validate(runtime["spec"])
        in_force = effective_runtime(template, spec, begun=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CannotServe(
            f"job or runtime cannot be read: {field}: {first['msg']}; is this program of the same "
            "release as the cluster's operator?"
        ) from error
    except (KeyError, Refused) as error:
        raise CannotServe(f"job or runtime cannot be read: {error}") from error
    stage, ref = served_model(meta["name"], spec, status, given.stage and Stage(given.stage))
    config = RunConfig(
        job=JobIdentity(name=meta["name"], namespace=meta["namespace"], uid=meta["uid"]),
        # A server of evaluate's, without an evaluation.
        stage=Stage.EVALUATE,
        attempt=1,
        spec=spec,
        serving=in_force.serving,
        rollout_image=in_force.images.rollout,
        inputs={stage.value: ref},
    )
    options = ServingOptions(_secret(meta["name"], given), given.replicas, given.temperature)
    return serving_objects(Build(in_force, config), options)


def served_model(
    name: str, spec: R1RewardJobSpec, status: R1RewardJobStatus, wanted: Stage | None
) -> tuple[Stage, InputRef]:
    """The stage whose weights are served, and where they are.

    Args:
        name: of the job.
        spec, status: of the job.
        wanted: None for the last one of a job that has succeeded.

    Raises:
        CannotServe: there are none, or not yet.
    """
    made = [stage for stage in TRAINED if getattr(spec, stage.value) is not None]
    if not made:
        raise CannotServe(f"job {name} trains nothing: it has neither spec.sft nor spec.rl")
    succeeded = any(c.type == "Succeeded" and c.status == "True" for c in status.conditions)
    if wanted is None and not succeeded:
        raise CannotServe(
            f"job {name} has not succeeded (it is {status.phase or 'not started'}): wait for it "
            f"(kubectl wait --for=condition=Succeeded r1rj/{name} --timeout=24h), or serve what a "
            f"finished stage has made with --stage {' or --stage '.join(reversed(made))}"
        )
    stage = wanted or made[0]
    if stage not in made:
        raise CannotServe(f"job {name} has no {stage} stage: use --stage {made[0]}")
    found = next((s for s in status.stages if s.name == stage.value), None)
    weights = found.outputs.get("weights") if found else None
    if (
        found is None
        or found.phase is not StagePhase.SUCCEEDED
        or found.key is None
        or weights is None
    ):
        phase = found.phase.value if found else "not started"
        raise CannotServe(f"stage {stage} of job {name} is {phase}: wait until it has succeeded")
    return stage, InputRef(stage=stage, key=found.key, output="weights", digest=weights.digest)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve-manifest",
        description="Prints a Deployment, Service, NetworkPolicy and ConfigMap that serve the "
        "model of a finished R1RewardJob, with the scoring front. Nobody owns them: "
        "kubectl delete takes them away.",
    )
    parser.add_argument("job", help="name of the R1RewardJob")
    parser.add_argument("-n", "--namespace", help="of the job; the context's own when absent")
    parser.add_argument("--kubeconfig", help="instead of the default one")
    parser.add_argument(
        "-f",
        dest="files",
        action="append",
        type=Path,
        default=[],
        help="file with job (status included) and runtime, instead of the cluster; repeatable",
    )
    parser.add_argument(
        "--stage",
        choices=[s.value for s in TRAINED],
        help="whose weights; the last stage's of a job that has succeeded when absent",
    )
    parser.add_argument("--replicas", type=_positive, default=1, help="pods, each with GPUs")
    parser.add_argument(
        "--token-secret", help="Secret with the clients' token in its key token; JOB-serving"
    )
    parser.add_argument(
        "--temperature",
        type=_temperature,
        default=1.0,
        help="of the probabilities' calibration: calibration.temperature of the model in the "
        "job's report.json",
    )
    return parser


def _from_cluster(given: argparse.Namespace) -> tuple[JsonObject, JsonObject]:
    namespace = given.namespace or _context_namespace(given.kubeconfig)
    client = KubeClient.from_environment(given.kubeconfig)
    job = client.get(R1REWARDJOBS, namespace, given.job)
    if job is None:
        raise CannotServe(
            f"there is no R1RewardJob {given.job} in namespace {namespace}: name its namespace "
            "with -n"
        )
    ref = job["spec"]["runtimeRef"]
    kind, name = ref.get("kind", CLUSTERR1REWARDRUNTIMES.kind), ref["name"]
    if kind == CLUSTERR1REWARDRUNTIMES.kind:
        runtime = client.get(CLUSTERR1REWARDRUNTIMES, None, name)
    else:
        runtime = client.get(R1REWARDRUNTIMES, namespace, name)
    if runtime is None:
        raise CannotServe(f"the job's runtime, {kind} {name}, does not exist any more")
    return job, runtime


def _from_files(given: argparse.Namespace) -> tuple[JsonObject, JsonObject]:
    objects = [o for file in given.files for o in _objects(file)]
    job = _find(objects, "R1RewardJob", given.job)
    if given.namespace not in (None, job["metadata"].get("namespace")):
        raise CannotServe(f"job {given.job} of the files is not in namespace {given.namespace}")
    for name in ("namespace", "uid"):
        if not job["metadata"].get(name):
            raise CannotServe(
                f"R1RewardJob {given.job}: metadata.{name} is missing; take the object from the "
                "cluster (kubectl get r1rj NAME -o yaml)"
            )
    ref = (job.get("spec") or {}).get("runtimeRef") or {}
    kind = ref.get("kind", CLUSTERR1REWARDRUNTIMES.kind)
    return job, _find(objects, kind, str(ref.get("name")))


def _objects(file: Path) -> list[JsonObject]:
    try:
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise CannotServe(f"{file} cannot be read: {error}") from error
    found = [o for o in documents if isinstance(o, dict)]
    return [o for d in found for o in (d["items"] if d.get("kind") == "List" else [d])]


def _find(objects: Sequence[JsonObject], kind: str, name: str) -> JsonObject:
    for found in objects:
        if found.get("kind") == kind and (found.get("metadata") or {}).get("name") == name:
            return found
    there = ", ".join(f"{o.get('kind')} {(o.get('metadata') or {}).get('name')}" for o in objects)
    raise CannotServe(f"the files hold no {kind} {name}; they hold {there or 'nothing'}")


def _context_namespace(kubeconfig: str | None) -> str:
    try:
        _, active = kubernetes_config.list_kube_config_contexts(kubeconfig)
    except kubernetes_config.ConfigException:
        return "default"  # in a pod
    return active["context"].get("namespace", "default")


def _secret(job: str, given: argparse.Namespace) -> str:
    return given.token_secret or serving_name(job)


def _header(meta: JsonObject, given: argparse.Namespace) -> str:
    name, secret = meta["name"], _secret(meta["name"], given)
    return (
        f"# The model of R1RewardJob {name}. Once, before:\n"
        f"#   kubectl -n {meta['namespace']} create secret generic {secret} "
        "--from-literal=token=$(openssl rand -hex 32)\n"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return number


def _temperature(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number


def _end(message: str) -> NoReturn:
    sys.exit(f"serve-manifest: {message}")
