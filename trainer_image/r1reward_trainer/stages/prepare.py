# SPDX-License-Identifier: Apache-2.0
"""prepare: resolves and checks everything before a GPU is held.

Outputs: model, train, heldout, chains (only with sft.chains), quality, and set-<name> for each of
evaluate.sets.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1reward_api.constants import Stage
from r1reward_api.keys import planned_key, stage_key
from r1reward_api.reasons import Reason
from r1reward_api.resource.job import PreferenceSource, R1RewardJobSpec
from r1reward_api.stages import baseline_output, set_output, stages_of
from r1reward_api.wire.manifest import Output, StageManifest
from r1reward_api.wire.runconfig import RunConfig
from r1reward_api.wire.termination import CachedStage
from r1reward_trainer.codedigest import code_digests
from r1reward_trainer.context import StageContext
from r1reward_trainer.data.balance import balanced_gold, with_gold
from r1reward_trainer.data.base_model import FoundModel, check_model, find_model
from r1reward_trainer.data.baselines import check_same_weights, find_baselines, naming_baseline
from r1reward_trainer.data.contamination import (
    HELDOUT,
    Findings,
    Screen,
    contamination_warnings,
)
from r1reward_trainer.data.intake import Intake, take_in
from r1reward_trainer.data.objects import changed_meanwhile
from r1reward_trainer.data.partition import admit, partition
from r1reward_trainer.data.prompts import ChainCheck, PromptCheck, check_rendering
from r1reward_trainer.data.quality import frame_warnings
from r1reward_trainer.data.rows import (
    SPOOL_ROWS_PER_GROUP,
    AnnotatedRow,
    Row,
    RowWriter,
    SetRow,
    open_annotated,
)
from r1reward_trainer.data.schema import parse_chain, parse_row, parse_set_row
from r1reward_trainer.data.sources import OpenStore, Source, find_source, sources_digest
from r1reward_trainer.data.split import ImageHash, held_out_rows
from r1reward_trainer.data.tokens import token_counter
from r1reward_trainer.outcome import ConfigurationError, Outcome, brief_outputs, run_of
from r1reward_trainer.storage.handover import Handover
from r1reward_trainer.storage.outputs import begin, find, publish, upload_output
from r1reward_trainer.storage.s3 import Store

logger = logging.getLogger(__name__)

_TICK_ROWS = 100
_CONTAMINATION = "contamination.jsonl"


def run(config: RunConfig, context: StageContext) -> Outcome:
    """Runs the stage.

    Raises:
        ConfigurationError: storage, model or data are not as they must be.
        InfrastructureError: storage or the hub does not answer.
        ProgramError: model or data changed while they were read.
    """
    spec, store = config.spec, context.store
    context.progress.update(message="checking storage")
    store.check_access()
    handover = Handover(store, config)  # at once: what still runs of an earlier job is fenced off
    check_lengths(spec, config.serving.max_model_length)

    context.progress.update(message="resolving model and data")
    found = find_model(spec.model, context.open_store)
    sources = find_sources(spec, context.open_store)
    baselines = find_baselines(spec.evaluate, context.open_store)
    inputs = {"model": found.digest, **sources.digests()}
    inputs |= {baseline_output(name): model.digest for name, model in baselines.items()}
    code = code_digests()
    key = stage_key(
        spec, config.serving, Stage.PREPARE, inputs, code[Stage.PREPARE], config.rollout_image
    )
    config = config.model_copy(update={"key": key})

    manifest = begin(store, config)
    cache_hit = manifest is not None and manifest.created_by != config.job.uid
    if manifest is None:
        outputs, summary = _compute(config, context, found, baselines, sources)
        check_unchanged(spec, context.open_store, inputs)
        manifest, cache_hit = publish(store, config, outputs, summary)
    cached = look_ahead(config, store, manifest, code)
    for stage in cached:
        if stage.stage is Stage.EVALUATE and (evaluated := find(store, stage.stage, stage.key)):
            handover.put(evaluated, context.scratch)  # no evaluate pod will
    return Outcome(manifest, cache_hit=cache_hit, code=code, cached=cached)


@dataclass(frozen=True)
class Sources:
    """The files behind the spec.

    Attributes:
        preferences: of data.preferences.
        chains: of sft.chains.
        sets: of evaluate.sets, by name.
    """

    preferences: list[Source]
    chains: list[Source]
    sets: Mapping[str, Source]

    def digests(self) -> dict[str, str]:
        """Of their content, by the name of the input."""
        inputs = {"preferences": self.preferences}
        if self.chains:
            inputs["chains"] = self.chains
        inputs |= {set_output(name): [source] for name, source in self.sets.items()}
        return {
            name: sources_digest([file for source in of for file in source.files])
            for name, of in inputs.items()
        }


def find_sources(spec: R1RewardJobSpec, open_store: OpenStore) -> Sources:
    """Looks up all files that the spec names.

    Raises:
        ConfigurationError: naming the field behind which there are none.
    """
    chains = spec.sft.chains if spec.sft else None
    return Sources(
        preferences=[
            find_source(f"data.preferences[{i}].uri", source, open_store)
            for i, source in enumerate(spec.data.preferences)
        ],
        chains=[find_source("sft.chains", PreferenceSource(uri=chains), open_store)]
        if chains
        else [],
        sets={
            one.name: find_source(f"evaluate.sets[{i}].uri", one, open_store)
            for i, one in enumerate(spec.evaluate.sets)
        },
    )


def check_unchanged(
    spec: R1RewardJobSpec, open_store: OpenStore, inputs: Mapping[str, str]
) -> None:
    """The rows must still be those of the key: they were read long after they were listed.

    Args:
        spec: of the job.
        open_store: where they lie.
        inputs: digests as the key has them, by `Sources.digests`.

    Raises:
        ProgramError: InvalidData, naming what changed.
    """
    for name, digest in find_sources(spec, open_store).digests().items():
        if inputs[name] != digest:
            raise changed_meanwhile(Reason.INVALID_DATA, f"what {name} names")


def check_lengths(spec: R1RewardJobSpec, max_model_length: int) -> None:
    """Prompt and answer together must fit into the model's length in every stage.

    Raises:
        ConfigurationError: naming the two fields and the remedy.
    """
    prompt = spec.data.max_prompt_tokens
    answers = {"evaluate.maxNewTokens": spec.evaluate.max_new_tokens}
    if spec.rl is not None:
        answers["rl.sampling.maxNewTokens"] = spec.rl.sampling.max_new_tokens
    for field, answer in answers.items():
        if prompt + answer > max_model_length:
            raise ConfigurationError(
                Reason.INVALID_SPEC,
                f"data.maxPromptTokens {prompt} and {field} {answer} together are more than the "
                f"runtime's serving.maxModelLength {max_model_length}; lower one of them",
            )


def look_ahead(
    config: RunConfig, store: Store, prepared: StageManifest, code: dict[str, str]
) -> list[CachedStage]:
    """Later stages that are already computed, as far as their inputs are known."""
    known = {Stage.PREPARE: _digests(prepared)}
    cached: list[CachedStage] = []
    for stage in stages_of(config.spec)[1:]:
        key = planned_key(config.spec, config.serving, stage, known, code, config.rollout_image)
        manifest = find(store, stage, key) if key else None
        if key is None or manifest is None:
            continue
        known[stage] = _digests(manifest)
        cached.append(
            CachedStage(
                stage=stage,
                key=key,
                run=run_of(manifest),
                outputs=brief_outputs(manifest),
                summary=manifest.summary,
            )
        )
    return cached


def _digests(manifest: StageManifest) -> dict[str, str]:
    return {name: output.digest for name, output in manifest.outputs.items()}


def _compute(
    config: RunConfig,
    context: StageContext,
    found: FoundModel,
    baselines: Mapping[str, FoundModel],
    sources: Sources,
) -> tuple[dict[str, Output], dict[str, str]]:
    spec, store, scratch = config.spec, context.store, context.scratch

    context.progress.update(message=f"staging {found.resolved}")
    model = scratch / "model"
    model.mkdir()
    found.stage(model)
    check_model(model, spec.model.uri, config.serving.max_model_length)
    check_rendering(model, f"spec.model.uri {spec.model.uri}", spec.data)

    for name, baseline in baselines.items():
        context.progress.update(message=f"staging {baseline.resolved}")
        folder = scratch / baseline_output(name)
        folder.mkdir()
        baseline.stage(folder)
        with naming_baseline(name):
            check_model(folder, baseline.resolved, config.serving.max_model_length)
            check_rendering(folder, f"spec.model.uri {baseline.resolved}", spec.data)
            check_same_weights(folder, model, baseline.resolved)

    quality = scratch / "quality"
    quality.mkdir()
    intake = _take_in_preferences(config, context, model, sources.preferences, quality)
    sets = {
        name: _take_in_set(config, context, model, name, source, quality)
        for name, source in sources.sets.items()
    }
    held = held_out_rows(intake.images, spec.data.holdout.fraction, spec.data.holdout.seed)
    parts, screen = partition(
        scratch / "spool",
        held,
        {name: scratch / set_output(name) for name in sets},
        spec.data,
        scratch / "train",
        scratch / HELDOUT,
        quality / _CONTAMINATION,
        _ticker(context, "comparing training rows with those that are judged"),
    )
    counts = {"train": parts.train, HELDOUT: parts.heldout}
    counts |= {set_output(name): taken["rows"] for name, taken in sets.items()}
    report = intake.quality.report(
        parts.train, parts.heldout, len({i for row in intake.images for i in row})
    )
    report |= {"model": found.resolved, "sets": sets, "contamination": parts.contamination}
    removed = spec.data.contamination == "Remove"
    report["warnings"] += contamination_warnings(parts.contamination, removed)
    for name, taken in sets.items():
        report["warnings"] += frame_warnings(taken, f"rows of {name}")
    if baselines:
        report["baselines"] = {name: model.resolved for name, model in baselines.items()}

    judged = {name: of["rows"] for name, of in parts.contamination["sets"].items()}
    chain_findings = Findings(judged, "chain")
    if sources.chains:
        held_images = {image for row in held for image in intake.images[row]}
        taken = _take_in_chains(
            config, context, model, sources.chains, quality, held_images, screen, chain_findings
        )
        report["chains"] = taken | {"contamination": chain_findings.figures()}
        report["warnings"] += contamination_warnings(
            chain_findings.figures(), removed, "chains of sft.chains"
        )
        counts["chains"] = taken["rows"]
    for warning in report["warnings"]:
        logger.warning("data: %s", warning)
    (quality / "report.json").write_text(json.dumps(report, indent=1))

    context.progress.update(message="uploading model and rows")
    outputs = {
        name: upload_output(store, config, name, scratch / name)
        for name in ("model", *map(baseline_output, baselines))
    }
    for name, rows in counts.items():
        outputs[name] = upload_output(store, config, name, scratch / name, rows)
    outputs["quality"] = upload_output(store, config, "quality", quality)
    summary = {
        "trainRows": str(counts["train"]),
        "heldoutRows": str(counts["heldout"]),
        "badRows": str(report["badRows"]),
        "contaminatedRows": str(parts.contamination["rows"]),
    }
    if sources.chains:
        summary["contaminatedChains"] = str(chain_findings.rows)
    return outputs, summary


def _take_in_preferences(
    config: RunConfig,
    context: StageContext,
    model: Path,
    sources: list[Source],
    quality: Path,
) -> Intake:
    data, images_per_prompt = config.spec.data, config.serving.images_per_prompt
    check = PromptCheck(model, data)
    with RowWriter(context.scratch / "spool", Row, rows_per_group=SPOOL_ROWS_PER_GROUP) as spool:
        intake = take_in(
            sources,
            lambda record, media: parse_row(record, images_per_prompt, media),
            check,
            spool.write,
            quality / "bad-rows.jsonl",
            context.scratch,
            data.max_rows,
            _ticker(context, "reading rows"),
            token_counter(model),
        )
    _refuse_too_many_bad(config, context, intake, quality, "data.preferences", sources)
    return intake


def _take_in_chains(
    config: RunConfig,
    context: StageContext,
    model: Path,
    sources: list[Source],
    quality: Path,
    held_images: set[ImageHash],
    screen: Screen,
    findings: Findings,
) -> dict[str, int]:
    """Chains about held-out images are left out: evaluation must not see what SFT has seen. Those
    that only look like it are left out where training rows are."""
    scratch, images_per_prompt = context.scratch, config.serving.images_per_prompt
    with RowWriter(scratch / "chain-spool", AnnotatedRow) as spool:
        intake = take_in(
            sources,
            lambda record, media: parse_chain(record, images_per_prompt, media),
            ChainCheck(model, config.spec.data, config.serving.max_model_length),
            spool.write,
            quality / "bad-rows.jsonl",
            scratch,
            None,
            _ticker(context, "reading chains"),
        )
    _refuse_too_many_bad(config, context, intake, quality, "sft.chains", sources)
    left_out = 0
    with (
        RowWriter(scratch / "chains", AnnotatedRow) as writer,
        (quality / _CONTAMINATION).open("a") as lines,
    ):
        for row, images in zip(open_annotated(scratch / "chain-spool"), intake.images, strict=True):
            if not held_images.isdisjoint(images):
                left_out += 1
                continue
            if admit(row, screen, findings, config.spec.data, lines.write):
                writer.write(row)
    if writer.rows == 0:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"sft.chains: none of {intake.quality.rows} good rows is about a training image that "
            f"may be trained on: {left_out} are about held-out images, and data.contamination "
            f"removes {findings.rows} that share an image or a text with rows that are judged; "
            "give chains for more images, or lower data.holdout.fraction",
        )
    return {
        "rows": writer.rows,
        "leftOutAsHeldOut": left_out,
        "badRows": intake.quality.bad_rows,
    }


def _take_in_set(
    config: RunConfig,
    context: StageContext,
    model: Path,
    name: str,
    source: Source,
    quality: Path,
) -> dict[str, Any]:
    """An evaluation set, the order of its answers balanced, its rows numbered to have unique ids.

    Returns:
        Its figures for the report.
    """
    data, images_per_prompt = config.spec.data, config.serving.images_per_prompt
    output = set_output(name)
    with RowWriter(context.scratch / output, SetRow) as writer:

        def write(row: SetRow) -> None:
            named = replace(row, id=f"{row.item}#{writer.rows}")
            writer.write(with_gold(named, balanced_gold(data.seed, output, writer.rows)))

        intake = take_in(
            [source],
            lambda record, media: parse_set_row(record, images_per_prompt, media),
            PromptCheck(model, data),
            write,
            quality / "bad-rows.jsonl",
            context.scratch,
            None,
            _ticker(context, f"reading evaluation set {name}"),
        )
    _refuse_too_many_bad(config, context, intake, quality, f"evaluate.sets {name}", [source])
    return intake.quality.figures()


def _refuse_too_many_bad(
    config: RunConfig,
    context: StageContext,
    intake: Intake,
    quality: Path,
    field: str,
    sources: list[Source],
) -> None:
    """Raises ConfigurationError past data.maxBadRows, or when no row is good; the quarantine is
    kept for the user."""
    good, bad, limit = intake.quality.rows, intake.quality.bad_rows, config.spec.data.max_bad_rows
    if good > 0 and bad <= limit:
        return
    if bad == 0:
        files = [file for source in sources for file in source.files]
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"{field}: there are no rows in {len(files)} files, of which the first is "
            f"{files[0].uri}; write rows into them, or name others",
        )
    kept = upload_output(context.store, config, "quality", quality)
    place = context.store.uri(f"{config.stage_prefix}/{kept.path}/bad-rows.jsonl")
    reasons = ", ".join(f"{n} {reason}" for reason, n in intake.quality.bad_reasons().items())
    remedy = "correct them, or raise data.maxBadRows" if good else "correct them: none is good"
    # The remedy before the examples, which may be long: a message is cut at its end.
    raise ConfigurationError(
        Reason.INVALID_DATA,
        f"{field}: {bad} of {bad + good} rows are bad ({reasons}), data.maxBadRows is {limit}. "
        f"All are in {place}: {remedy}. First: {'; '.join(intake.bad_examples)}",
    )


def _ticker(context: StageContext, message: str) -> Callable[[int], None]:
    context.progress.update(message=message)

    def tick(rows: int) -> None:
        context.raise_if_stopped()
        if rows % _TICK_ROWS == 0:
            context.progress.update(step=rows, metrics={"rows": float(rows)})

    return tick
