# SPDX-License-Identifier: Apache-2.0
"""Gathers what is known of one job. Reads memory only."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from r1reward_api.resource.job import R1RewardJobSpec, RuntimeRef
from r1reward_api.resource.runtime import R1RewardRuntimeSpec
from r1reward_api.resource.status import R1RewardJobStatus
from r1reward_api.wire.progress import Progress
from r1reward_operator.observed import JsonObject, Observed, Runtime
from r1reward_operator.stores import BY_JOB, BY_OWNER, Stores


def observe(
    stores: Stores,
    namespace: str,
    name: str,
    absent: frozenset[str] = frozenset(),
    listening_since: datetime | None = None,
) -> Observed | None:
    """All that is known of a job; None when it is not there.

    Args:
        stores: what is in memory.
        namespace: of the job.
        name: of the job.
        absent: kinds that the API server does not serve.
        listening_since: when the operator began to take reports of progress.

    Raises:
        ValidationError: when the status is not one that this operator understands.
    """
    job = stores.jobs.get(namespace, name)
    if job is None:
        return None
    uid = job["metadata"]["uid"]
    spec, problem, newer = _spec(job.get("spec"))
    # Owners and labels are whatever their writer says: who may write in another namespace must
    # not have a say in this one.
    children = (c for s in stores.children.values() for c in s.by_index(BY_OWNER, uid))
    pods = stores.pods.by_index(BY_JOB, uid)
    return Observed(
        job=job,
        spec=spec,
        status=_status(job.get("status")),
        runtime=_runtime(stores, namespace, spec.runtime_ref) if spec else Runtime(None),
        children=_in(namespace, children),
        pods=_in(namespace, pods),
        problem=problem,
        newer=newer,
        absent=absent,
        listening_since=listening_since,
    )


def _in(namespace: str, objects: Iterable[JsonObject]) -> tuple[JsonObject, ...]:
    return tuple(o for o in objects if o["metadata"]["namespace"] == namespace)


def describe(error: ValidationError) -> str:
    """The first thing that is wrong, by its place."""
    first = error.errors()[0]
    place = ".".join(str(p) for p in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _spec(wire: Any) -> tuple[R1RewardJobSpec | None, str, bool]:
    """The spec, or why there is none and whether it is of a newer version."""
    try:
        return R1RewardJobSpec.model_validate(wire), "", False
    except ValidationError as error:
        if newer := _of_a_newer_crd(error):
            return None, newer, True
        return None, f"spec.{describe(error)}; delete the job and create it anew", False


def _of_a_newer_crd(error: ValidationError) -> str:
    """Names the fields of a spec that are too new for this operator; empty when more is wrong.

    The API server lets no field pass that its CRD does not know. So a field that this operator
    does not know was added by a newer CRD, perhaps as a default, in the minutes of an upgrade in
    which the CRD is there and the new operator is not.
    """
    unknown = [e for e in error.errors() if e["type"] == "extra_forbidden"]
    if len(unknown) < error.error_count():
        return ""
    fields = ", ".join(".".join(["spec", *map(str, e["loc"])]) for e in unknown)
    return f"{fields}: of a newer CRD; upgrade the operator to its version"


def _status(wire: Mapping[str, Any] | None) -> R1RewardJobStatus:
    known = {k: v for k, v in (wire or {}).items() if k != "progress"}
    status = R1RewardJobStatus.model_validate(known)
    progress = (wire or {}).get("progress")
    if progress is None:
        return status
    try:
        return status.model_copy(update={"progress": Progress.model_validate(progress)})
    except ValidationError:
        return status  # another manager's field: nothing depends on it


def _runtime(stores: Stores, namespace: str, ref: RuntimeRef) -> Runtime:
    if ref.kind == "R1RewardRuntime":
        found = stores.runtimes.get(namespace, ref.name)
    else:
        found = stores.cluster_runtimes.get(None, ref.name)
    if found is None:
        return Runtime(None, f"{ref.kind} {ref.name} does not exist; create it, or ask for it")
    what = f"{ref.kind} {ref.name}"
    try:
        return Runtime(R1RewardRuntimeSpec.model_validate(found.get("spec")))
    except ValidationError as error:
        if newer := _of_a_newer_crd(error):
            return Runtime(None, f"{what}: {newer}")
        return Runtime(None, f"{what}: spec.{describe(error)}", waiting=False)
