# SPDX-License-Identifier: Apache-2.0
"""The runtime in force for a stage's next attempt, and the stage's key under it."""

from r1reward_api.constants import Stage
from r1reward_api.keys import planned_key
from r1reward_api.names import frozen_revision
from r1reward_api.reasons import Reason
from r1reward_api.resource.runtime import R1RewardRuntimeSpec
from r1reward_api.stages import Digests
from r1reward_operator.plan.effective import Refused, effective_runtime
from r1reward_operator.plan.freeze import frozen_runtime, pinned, trainer_image
from r1reward_operator.plan.model import JsonObject
from r1reward_operator.plan.situation import Situation


class Missing(Exception):
    """Something that the stage needs is not there yet: waiting helps."""


def runtime_in_force(s: Situation) -> R1RewardRuntimeSpec:
    """The runtime of now, but for what an earlier attempt has fixed.

    Once a stage has run, its key stands, so the model settings and the rollout image
    that the key counts stay those of that run. The trainer image stays the one in which
    prepare computed the digests of the stages' code.

    Raises:
        Missing: when there is no runtime.
        Refused: when the job asks for what the runtime does not give.
    """
    found = s.observed.runtime
    if found.spec is None:
        if found.waiting:
            raise Missing(found.problem)
        raise Refused(Reason.INVALID_SPEC, found.problem)
    begun = s.stage is not Stage.PREPARE or s.attempt > 0
    runtime = effective_runtime(found.spec, s.spec, begun)
    images = runtime.images
    first = trainer_image(_revision(s, Stage.PREPARE, s.stages[Stage.PREPARE].attempt))
    if s.stage is not Stage.PREPARE and first is not None:
        images = images.model_copy(update={"trainer": first})
    earlier = pinned(_latest_revision(s))
    serving = runtime.serving
    if s.status.key is not None and earlier is not None:
        images = images.model_copy(update={"rollout": earlier.rollout_image})
        serving = earlier.serving
    return runtime.model_copy(update={"images": images, "serving": serving})


def is_superseded(s: Situation, revision: JsonObject) -> bool:
    """Whether a next attempt would begin under another runtime than this one did.

    A runtime that is gone or does not fit the job supersedes nothing.
    """
    began = frozen_runtime(revision)
    try:
        return began is not None and began != runtime_in_force(s)
    except (Missing, Refused):
        return False


def key_in_force(s: Situation, runtime: R1RewardRuntimeSpec) -> str | None:
    """The stage's key; None for prepare, which computes its own.

    Raises:
        Refused: when prepare did not say what the key needs.
    """
    if s.stage is Stage.PREPARE:
        return None
    if s.status.key is not None:
        return s.status.key
    key = planned_key(
        s.spec,
        runtime.serving,
        s.stage,
        known_digests(s),
        s.observed.status.code,
        runtime.images.rollout,
    )
    if key is None:
        raise Refused(
            Reason.INVALID_SPEC,
            f"earlier stages left no input or no code digest for stage {s.stage}: operator and "
            "trainer image must be of the same release",
        )
    return key


def known_digests(s: Situation) -> Digests:
    """Digest of every output so far."""
    return {
        stage: {name: output.digest for name, output in status.outputs.items()}
        for stage, status in s.stages.items()
    }


def _latest_revision(s: Situation) -> JsonObject | None:
    """The stage's newest ControllerRevision: of this attempt, or of one before."""
    for attempt in range(s.attempt, 0, -1):
        found = _revision(s, s.stage, attempt)
        if found is not None:
            return found
    return None


def _revision(s: Situation, stage: Stage, attempt: int) -> JsonObject | None:
    name = frozen_revision(s.observed.name, stage, attempt)
    return s.observed.child("ControllerRevision", name)
