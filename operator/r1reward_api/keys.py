# SPDX-License-Identifier: Apache-2.0
"""A stage's key: the digest of all that its result depends on."""

import hashlib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from r1reward_api.base import Operational
from r1reward_api.canonical import canonical_json
from r1reward_api.constants import Stage
from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.resource.runtime import ModelServing
from r1reward_api.stages import Digests, key_inputs

KEY_VERSION = 1
"""Raise it when the meaning of a key changes: no old result is then taken for a new one."""

_PROMPT_FIELDS = ("promptTemplate", "minPixels", "maxPixels", "maxPromptTokens")
_SERVING_FIELDS = ("dtype", "maxModelLength")


def stage_key(
    spec: R1RewardJobSpec,
    serving: ModelServing,
    stage: Stage,
    inputs: Mapping[str, str],
    code: str,
    rollout_image: str,
) -> str:
    """The key of a stage.

    Args:
        spec: the job's spec as frozen.
        serving: the runtime's model settings.
        stage: the stage.
        inputs: digest of each input; for prepare, of its sources.
        code: digest of the stage's code, reported from inside the image.
        rollout_image: counts for rl and evaluate.

    Returns:
        64 hexadecimal digits.
    """
    value = {
        "version": KEY_VERSION,
        "stage": stage.value,
        "fields": semantic_fields(spec, serving, stage),
        "inputs": dict(inputs),
        "code": code,
        "rolloutImage": rollout_image if stage in (Stage.RL, Stage.EVALUATE) else None,
    }
    return hashlib.sha256(canonical_json(value)).hexdigest()


def planned_key(
    spec: R1RewardJobSpec,
    serving: ModelServing,
    stage: Stage,
    known: Digests,
    code: Mapping[str, str],
    rollout_image: str,
) -> str | None:
    """The key of a stage after prepare, or None while an input or its code is unknown."""
    inputs = key_inputs(spec, stage, known)
    if inputs is None or stage.value not in code:
        return None
    return stage_key(spec, serving, stage, inputs, code[stage.value], rollout_image)


def semantic_fields(spec: R1RewardJobSpec, serving: ModelServing, stage: Stage) -> dict[str, Any]:
    """The fields of the spec that change what the stage computes."""
    data = semantic(spec.data)
    prompt = {k: data.get(k) for k in _PROMPT_FIELDS}
    held = {k: v for k, v in semantic(serving).items() if k in _SERVING_FIELDS}
    # vLLM's arguments can change what it answers, as --quantization does.
    served = {**held, **({"extraArgs": serving.extra_args} if serving.extra_args else {})}
    match stage:
        case Stage.PREPARE:
            chains = spec.sft.chains if spec.sft else None
            return {
                "data": data,
                "model": semantic(spec.model),
                "chains": chains,
                "sets": [semantic(one) for one in spec.evaluate.sets],
                "imagesPerPrompt": serving.images_per_prompt,  # rows with more are bad rows
                # Longer chains are bad rows, and a model of fewer positions is refused.
                "maxModelLength": serving.max_model_length,
            }
        case Stage.ANNOTATE:
            own = semantic(spec.annotate) if spec.annotate else {}
            return {"annotate": own, "promptTemplate": prompt["promptTemplate"]}
        case Stage.SFT:
            own = semantic(spec.sft) if spec.sft else {}
            own.pop("chains", None)  # its rows are an input
            return {"sft": own, "prompt": prompt, "serving": held}
        case Stage.RL:
            own = semantic(spec.rl) if spec.rl else {}
            own.pop("rows", None)  # its rows are an input
            return {"rl": own, "prompt": prompt, "serving": served}
        case Stage.EVALUATE:
            own = semantic(spec.evaluate)
            # Their rows are inputs; the format says by which rules a set is scored.
            own["sets"] = [{"name": s.name, "format": s.format} for s in spec.evaluate.sets]
            own["baselines"] = [b.name for b in spec.evaluate.baselines]  # their weights are inputs
            return {"evaluate": own, "prompt": prompt, "serving": served}


def semantic(model: BaseModel) -> dict[str, Any]:
    """Wire form of a model without its Operational fields, at any depth.

    Fields at None are left out, so that adding an optional field keeps old keys.
    """
    wire: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value is None or is_marked(field, Operational):
            continue
        wire[field.alias or name] = _semantic_value(value)
    return wire


def _semantic_value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return semantic(value)
    if isinstance(value, list | tuple):
        return [_semantic_value(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _semantic_value(v) for k, v in value.items()}
    return value


def is_marked(field: FieldInfo, marker: type) -> bool:
    """True when the field, or a member of its union, is annotated with the marker."""
    metadata = list(field.metadata)
    for member in get_args(field.annotation):
        metadata += getattr(member, "__metadata__", ())
    return any(isinstance(m, marker) for m in metadata)
