# SPDX-License-Identifier: Apache-2.0
"""The runtime in force for a job: the platform's template with the job's allowed changes."""

from r1reward_api.constants import Role
from r1reward_api.reasons import Reason
from r1reward_api.resource.job import R1RewardJobSpec, RoleOverride
from r1reward_api.resource.runtime import Images, R1RewardRuntimeSpec, RoleTemplate, TrainerShape


class Refused(Exception):
    """The job asks for what the runtime does not give; final until somebody changes it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def effective_runtime(
    runtime: R1RewardRuntimeSpec, spec: R1RewardJobSpec, begun: bool = False
) -> R1RewardRuntimeSpec:
    """The runtime with the job's overrides applied and its limits checked.

    Args:
        runtime: the platform's template.
        spec: the job's.
        begun: the job has begun. From then on replicas may be raised, and stop at the limit
            where they pass it: that must not cost a job what it has computed.

    Raises:
        Refused: naming the field and the remedy.
    """
    _check_limits(runtime, spec, begun)
    roles = dict(runtime.roles)
    for role, override in spec.overrides.roles.items():
        roles[role] = _overridden(runtime, role, override)
    return runtime.model_copy(update={"images": _images(runtime, spec), "roles": roles})


def template_of(runtime: R1RewardRuntimeSpec, role: Role) -> RoleTemplate:
    """The role's template; all defaults where the runtime has none."""
    return runtime.roles.get(role, RoleTemplate())


def trainer_shape(runtime: R1RewardRuntimeSpec, workers: int | None) -> TrainerShape:
    """The size of a stage's PyTorchJob: the stage's own number of workers, or the runtime's."""
    return runtime.trainer.model_copy(update={"workers": workers or runtime.trainer.workers})


def _images(runtime: R1RewardRuntimeSpec, spec: R1RewardJobSpec) -> Images:
    wanted = {
        "trainer": spec.overrides.trainer_image,
        "rollout": spec.overrides.rollout_image,
    }
    changes = {name: image for name, image in wanted.items() if image is not None}
    for name, image in changes.items():
        _require(runtime, "image", f"spec.overrides.{name}Image")
        if not any(image.startswith(prefix) for prefix in runtime.allowed_image_prefixes):
            allowed = ", ".join(runtime.allowed_image_prefixes) or "none"
            raise Refused(
                Reason.OVERRIDE_NOT_ALLOWED,
                f"spec.overrides.{name}Image is {image}; the runtime allows images that begin "
                f"with: {allowed}",
            )
    return runtime.images.model_copy(update=changes)


def _overridden(runtime: R1RewardRuntimeSpec, role: Role, override: RoleOverride) -> RoleTemplate:
    template = template_of(runtime, role)
    changes = {}
    for field, name in (
        ("resources", "resources"),
        ("node_selector", "nodeSelector"),
        ("tolerations", "tolerations"),
        ("env", "env"),
    ):
        value = getattr(override, field)
        if value is not None:
            _require(runtime, name, f"spec.overrides.roles.{role}.{name}")
            changes[field] = value
    if "env" in changes:
        # Later names win, so the platform's own variables stay unless they are named.
        named = {e.name: e for e in [*template.env, *changes["env"]]}
        changes["env"] = list(named.values())
    return template.model_copy(update=changes)


def _require(runtime: R1RewardRuntimeSpec, name: str, field: str) -> None:
    if name not in runtime.allowed_overrides:
        allowed = ", ".join(runtime.allowed_overrides) or "nothing"
        raise Refused(
            Reason.OVERRIDE_NOT_ALLOWED,
            f"{field} is set, but the runtime allows to override only: {allowed}; "
            "remove it or ask the platform team",
        )


def _check_limits(runtime: R1RewardRuntimeSpec, spec: R1RewardJobSpec, begun: bool) -> None:
    for field, value, limit in _workers(runtime, spec) + ([] if begun else _servers(runtime, spec)):
        if value > limit:
            raise Refused(
                Reason.INVALID_SPEC,
                f"{field} is {value}; the runtime allows at most {limit}",
            )


_Rule = tuple[str, int, int]
"""A field, its value and the most that it may be."""


def _workers(runtime: R1RewardRuntimeSpec, spec: R1RewardJobSpec) -> list[_Rule]:
    limit = runtime.limits.workers
    rules: list[_Rule] = []
    if spec.sft is not None and spec.sft.workers is not None:
        rules.append(("spec.sft.workers", spec.sft.workers, limit))
    if spec.rl is not None and spec.rl.workers is not None:
        rules.append(("spec.rl.workers", spec.rl.workers, limit))
    return rules


def _servers(runtime: R1RewardRuntimeSpec, spec: R1RewardJobSpec) -> list[_Rule]:
    limits = runtime.limits
    most = limits.rollout_replicas
    rules = [("spec.evaluate.rolloutReplicas", spec.evaluate.rollout_replicas, most)]
    if spec.rl is None:
        return rules
    rules.append(("spec.rl.rollout.replicas", spec.rl.rollout.replicas, most))
    verifier = spec.rl.verifier
    if verifier.judge is not None and verifier.judge.model is not None:
        rules.append(("spec.rl.verifier.judge.replicas", verifier.judge.replicas, most))
    rules.append(("spec.rl.verifier.replicas", verifier.replicas, limits.verifier_replicas))
    return rules
