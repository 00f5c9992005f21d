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


def effective_runtime(runtime: R1RewardRuntimeSpec, spec: R1RewardJobSpec) -> R1RewardRuntimeSpec:
    """The runtime with the job's overrides applied and its limits checked.

    Raises:
        Refused: naming the field and the remedy.
    """
    _check_limits(runtime, spec)
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


def _check_limits(runtime: R1RewardRuntimeSpec, spec: R1RewardJobSpec) -> None:
    limits = runtime.limits
    asked = [("spec.evaluate.rolloutReplicas", spec.evaluate.rollout_replicas)]
    if spec.rl is not None:
        asked.append(("spec.rl.rollout.replicas", spec.rl.rollout.replicas))
        judge = spec.rl.verifier.judge
        if judge is not None and judge.model is not None:
            asked.append(("spec.rl.verifier.judge.replicas", judge.replicas))
    rules = [(field, value, limits.rollout_replicas) for field, value in asked]
    if spec.sft is not None and spec.sft.workers is not None:
        rules.append(("spec.sft.workers", spec.sft.workers, limits.workers))
    if spec.rl is not None:
        if spec.rl.workers is not None:
            rules.append(("spec.rl.workers", spec.rl.workers, limits.workers))
        verifier = spec.rl.verifier.replicas
        rules.append(("spec.rl.verifier.replicas", verifier, limits.verifier_replicas))
    for field, value, limit in rules:
        if value > limit:
            raise Refused(
                Reason.INVALID_SPEC,
                f"{field} is {value}; the runtime allows at most {limit}",
            )
