# SPDX-License-Identifier: Apache-2.0
"""The chain: which stages a job has, what each reads and what each leaves.

    prepare   -> model, train, heldout, chains (only with sft.chains), quality,
                 set-<name> for each of evaluate.sets, baseline-<name> for each of
                 evaluate.baselines
    annotate  -> sft, rl
    sft       -> weights, metrics
    rl        -> weights, metrics
    evaluate  -> predictions, report

Pure: the operator decides with it, and prepare looks ahead in the cache with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from r1reward_api.constants import STAGES, Stage
from r1reward_api.resource.job import R1RewardJobSpec

Digests = Mapping[Stage, Mapping[str, str]]
"""Digest of each known output, by stage and output name."""


@dataclass(frozen=True)
class Source:
    """Where an input comes from.

    Attributes:
        stage: the stage that makes it.
        output: the output's name in that stage's manifest.
        informative: read for the report only, no part of the key.
    """

    stage: Stage
    output: str
    informative: bool = False


def stages_of(spec: R1RewardJobSpec) -> tuple[Stage, ...]:
    """The stages that this job runs, in order."""
    present = {
        Stage.PREPARE: True,
        Stage.ANNOTATE: spec.annotate is not None,
        Stage.SFT: spec.sft is not None,
        Stage.RL: spec.rl is not None,
        Stage.EVALUATE: True,
    }
    return tuple(s for s in STAGES if present[s])


def sources_of(spec: R1RewardJobSpec, stage: Stage) -> dict[str, Source]:
    """What a stage reads, by the name under which it reads it.

    annotate: rows. sft: model, chains. rl: model, rows. evaluate: heldout, set-<name> for each
    set, baseline-<name> for each baseline, base and, of the stages that ran, sft, rl (weights)
    and sftMetrics, rlMetrics.
    """
    base = Source(Stage.PREPARE, "model")
    trained = Source(Stage.SFT, "weights") if spec.sft else base
    match stage:
        case Stage.PREPARE:
            return {}
        case Stage.ANNOTATE:
            return {"rows": Source(Stage.PREPARE, "train")}
        case Stage.SFT:
            own = spec.sft is not None and spec.sft.chains is not None
            chains = Source(Stage.PREPARE, "chains") if own else Source(Stage.ANNOTATE, "sft")
            return {"model": base, "chains": chains}
        case Stage.RL:
            hard = spec.rl is not None and spec.rl.rows == "Hard"
            rows = Source(Stage.ANNOTATE, "rl") if hard else Source(Stage.PREPARE, "train")
            return {"model": trained, "rows": rows}
        case Stage.EVALUATE:
            return _evaluated(spec, base)


def set_output(name: str) -> str:
    """The output of prepare, and the input of evaluate, that holds an evaluation set."""
    return f"set-{name}"


def baseline_output(name: str) -> str:
    """The output of prepare, and the input of evaluate, that holds a baseline's model."""
    return f"baseline-{name}"


def _evaluated(spec: R1RewardJobSpec, base: Source) -> dict[str, Source]:
    names = [
        "heldout",
        *(set_output(one.name) for one in spec.evaluate.sets),
        *(baseline_output(one.name) for one in spec.evaluate.baselines),
    ]
    sources = {name: Source(Stage.PREPARE, name) for name in names}
    if "Base" in spec.evaluate.models:
        sources["base"] = base
    if spec.sft is not None and "SFT" in spec.evaluate.models:
        sources["sft"] = Source(Stage.SFT, "weights")
        sources["sftMetrics"] = Source(Stage.SFT, "metrics", informative=True)
    if spec.rl is not None and "RL" in spec.evaluate.models:
        sources["rl"] = Source(Stage.RL, "weights")
        sources["rlMetrics"] = Source(Stage.RL, "metrics", informative=True)
    if not {"base", "sft", "rl"} & sources.keys():
        # Every listed model belongs to a stage that did not run: the base is what there is.
        sources["base"] = base
    return sources


def key_inputs(spec: R1RewardJobSpec, stage: Stage, known: Digests) -> dict[str, str] | None:
    """Digests of the inputs that are part of the stage's key.

    Returns:
        By input name, or None while an earlier stage has not finished.
    """
    digests: dict[str, str] = {}
    for name, source in sources_of(spec, stage).items():
        digest = known.get(source.stage, {}).get(source.output)
        if digest is None:
            return None
        if not source.informative:
            digests[name] = digest
    return digests
