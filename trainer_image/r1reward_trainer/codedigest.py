# SPDX-License-Identifier: Apache-2.0
"""Digest of each stage's own code, part of the stage's key.

Computed from the files inside the image, so that a changed stage is never served
from the cache of an older one, and an unchanged stage still is.
"""

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

from r1reward_api.canonical import canonical_json
from r1reward_api.constants import Stage

_SHARED = ("render.py", "images.py")
_SAMPLED = ("rollout/types.py", "rollout/wire.py")
"""How vLLM is told to sample."""
_TRAINING = (
    "model.py",
    "sharding.py",
    "batch.py",
    "logprobs.py",
    "optim.py",
    "training.py",
    *_SHARED,
)
STAGE_CODE: dict[Stage, tuple[str, ...]] = {
    Stage.PREPARE: ("stages/prepare.py", "data", "method/verdict.py", *_SHARED),
    Stage.ANNOTATE: (
        "stages/annotate.py",
        "annotation",
        "teacher.py",
        "data/split.py",
        "method/verdict.py",
        *_SHARED,
    ),
    Stage.SFT: ("stages/sft.py", "method/sampler.py", *_TRAINING),
    Stage.RL: (
        "stages/rl.py",
        "policy_step.py",
        "sampling.py",
        "method",
        "verifier",
        *_SAMPLED,
        *_TRAINING,
    ),
    Stage.EVALUATE: (
        "stages/evaluate.py",
        "data/split.py",
        "evaluation",
        "method/reasons.py",
        "method/reward.py",
        "method/sampler.py",
        "method/verdict.py",
        "method/voting.py",
        *_SAMPLED,
        *_SHARED,
    ),
}
"""Files and folders of this package, by stage: what changes the stage's result."""


def code_digests() -> dict[str, str]:
    """32 hexadecimal digits for each stage."""
    root = resources.files("r1reward_trainer")
    return {stage.value: _digest(root, paths) for stage, paths in STAGE_CODE.items()}


def _digest(root: Traversable, paths: tuple[str, ...]) -> str:
    listing: list[list[str]] = []
    for path in paths:
        _collect(root.joinpath(path), path, listing)
    return hashlib.sha256(canonical_json(sorted(listing))).hexdigest()[:32]


def _collect(node: Traversable, path: str, listing: list[list[str]]) -> None:
    if node.is_dir():
        for child in node.iterdir():
            if child.name != "__pycache__":
                _collect(child, f"{path}/{child.name}", listing)
    elif node.name.endswith((".py", ".html", ".css")):
        listing.append([path, hashlib.sha256(node.read_bytes()).hexdigest()])
