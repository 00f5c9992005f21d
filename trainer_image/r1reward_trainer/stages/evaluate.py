# SPDX-License-Identifier: Apache-2.0
"""evaluate: base, SFT and RL weights judge the held-out rows and sets in turn, in both orders.

Outputs: predictions (predictions.parquet; official/ for the benchmarks' own scorers) and report
(report.html, report.json), both copied to `jobs/<name>/`, where latest.json moves to them when the
job's gates are passed.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from r1reward_api.constants import Role
from r1reward_api.keys import semantic
from r1reward_api.reasons import Reason
from r1reward_api.stages import set_output
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.context import StageContext
from r1reward_trainer.data.rows import Row, open_rows, open_set
from r1reward_trainer.evaluation import figures as evaluation_figures
from r1reward_trainer.evaluation.calibrated import write_calibrated
from r1reward_trainer.evaluation.candidates import candidates
from r1reward_trainer.evaluation.journal import Journal
from r1reward_trainer.evaluation.judging import AskingRules
from r1reward_trainer.evaluation.official import write_official
from r1reward_trainer.evaluation.predictions import FIGURE_COLUMNS, GREEDY, HELDOUT
from r1reward_trainer.evaluation.report.build import render
from r1reward_trainer.evaluation.report.curves import curves
from r1reward_trainer.evaluation.report.document import Report
from r1reward_trainer.evaluation.report.lineage import artifact, settings
from r1reward_trainer.evaluation.report.pictures import data_uri
from r1reward_trainer.evaluation.report.transcripts import choose
from r1reward_trainer.evaluation.session import judge_all
from r1reward_trainer.evaluation.sets import BENCHMARKS, EvaluationSet, evaluation_set
from r1reward_trainer.logs.services import service_logs
from r1reward_trainer.method.sampler import order
from r1reward_trainer.outcome import ConfigurationError, Outcome
from r1reward_trainer.rollout import FleetOptions, RolloutFleet
from r1reward_trainer.storage.handover import Handover
from r1reward_trainer.storage.outputs import (
    begin,
    fetch_input,
    publish,
    read_manifest,
    upload_output,
)
from r1reward_trainer.storage.s3 import Store

_PRESIGN_SECONDS = 3600
"""A server that comes late still reads the weights for so long."""
_FIRST_IN_FLIGHT = 64
"""Prompts that a server has before its queue is known."""
_MOST_IN_FLIGHT = 256
"""Prompts a server at most: each holds its images here once more, encoded for the wire."""
_GREEDY = [("sample", "==", GREEDY), ("set", "==", HELDOUT)]


def run(config: RunConfig, context: StageContext) -> Outcome:
    """Runs the stage.

    Raises:
        ConfigurationError: an input is missing or corrupt.
        InfrastructureError: storage or the rollout servers do not answer.
        Interrupted: after SIGTERM; finished chunks are in the journal.
    """
    store = context.store
    handover = Handover(store, config)
    journal = Journal(store, f"{config.run_prefix}/journal")
    done = begin(store, config) or _evaluate(config, context, journal)
    journal.clear()  # nobody resumes from it any more
    handover.put(done, context.scratch)
    judgements = done.outputs["predictions"].rows
    return Outcome(done, cache_hit=done.created_by != config.job.uid, step=judgements)


def _evaluate(config: RunConfig, context: StageContext, journal: Journal) -> StageManifest:
    store, spec, scratch = context.store, config.spec.evaluate, context.scratch
    context.progress.update(message="reading held-out rows")
    sets = _sets(config, store, scratch)
    models = candidates(config, store, scratch)
    rules = AskingRules(
        votes=tuple(sorted({k for k in spec.votes if k > 1})),
        early_stop=spec.early_stop,
        temperature=spec.temperature,
        max_new_tokens=spec.max_new_tokens,
        seed=spec.seed,
    )

    judged = scratch / "judged" / "judged.parquet"
    predictions = scratch / "predictions" / "predictions.parquet"
    with _fleet(config, context) as fleet, service_logs(store, config, {Role.ROLLOUT: fleet.logs}):
        judge_all(context, models, sets, rules, fleet, journal, judged)

    context.progress.update(message="writing the report")
    names = [model.name for model in models]
    write_calibrated(judged, predictions, names, sets)
    write_official(predictions, sets, names, predictions.parent / "official")
    figures = evaluation_figures.compute(
        pq.read_table(predictions, columns=list(FIGURE_COLUMNS)),
        names,
        evaluation_figures.Rules(
            spec.votes,
            spec.bootstrap_samples,
            spec.seed,
            gates=tuple(spec.gates),
            protocols=tuple(spec.protocols),
            sets={given.name: given.benchmark for given in sets if given.name != HELDOUT},
        ),
    )
    rows = sets[0].rows
    report = _report(config, context, figures, pq.read_table(predictions, filters=_GREEDY), rows)
    _write_report(report, rows, scratch / "report")
    outputs = {
        "predictions": upload_output(
            store, config, "predictions", predictions.parent, pq.read_metadata(predictions).num_rows
        ),
        "report": upload_output(store, config, "report", scratch / "report"),
    }
    manifest, _ = publish(store, config, outputs, evaluation_figures.summary(figures))
    return manifest


def _sets(config: RunConfig, store: Store, scratch: Path) -> list[EvaluationSet]:
    """The held-out rows, then the sets of `evaluate.sets`."""
    spec = config.spec.evaluate
    rows = open_rows(fetch_input(store, config, HELDOUT, scratch / HELDOUT))
    chosen = choose_rows(len(rows), spec.max_rows, spec.seed)
    sets = [evaluation_set(HELDOUT, None, rows, chosen)]
    for one in spec.sets:
        name = set_output(one.name)
        rows = open_set(fetch_input(store, config, name, scratch / name))
        if not len(rows):
            raise ConfigurationError(
                Reason.INVALID_DATA, f"evaluate.sets: {one.name} has no rows: check its uri"
            )
        sets.append(evaluation_set(one.name, BENCHMARKS.get(one.format), rows, range(len(rows))))
    return sets


def choose_rows(available: int, most: int | None, seed: int) -> tuple[int, ...]:
    """Positions of the rows to use, rising: all of them, or `most` drawn by seed.

    Raises:
        ConfigurationError: when there is none.
    """
    if available == 0:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            "no held-out rows: raise data.holdout.fraction or give more preferences",
        )
    return tuple(sorted(order(seed, 0, available)[:most]))


def _key(config: RunConfig) -> str:
    if config.key is None:
        raise ConfigurationError(Reason.INVALID_SPEC, "run configuration: key is missing")
    return config.key


def _fleet(config: RunConfig, context: StageContext) -> RolloutFleet:
    services = config.services
    if services.rollout_host is None or context.token is None:
        raise ConfigurationError(
            Reason.INVALID_SPEC, "evaluate needs services.rolloutHost and the attempt's token"
        )
    return RolloutFleet(
        FleetOptions(
            service=services.rollout_host,
            job_uid=config.job.uid,
            port=services.rollout_port,
            first_in_flight_per_server=_FIRST_IN_FLIGHT,
            max_in_flight_per_server=_MOST_IN_FLIGHT,
        ),
        token=context.token,
        presign=lambda key: context.store.presign_get(key, _PRESIGN_SECONDS),
    )


def _report(
    config: RunConfig,
    context: StageContext,
    figures: evaluation_figures.Figures,
    greedy: pa.Table,
    rows: Sequence[Row],
) -> Report:
    store, spec = context.store, config.spec
    manifests = {name: read_manifest(store, ref) for name, ref in config.inputs.items()}
    ran = {key: value for one in manifests.values() for key, value in one.summary.items()}
    metrics = {stage: f"{stage}Metrics" for stage in ("sft", "rl")}
    trained = [
        curve
        for stage, name in metrics.items()
        if name in config.inputs
        for folder in [fetch_input(store, config, name, context.scratch / name)]
        for curve in curves(stage, (folder / "metrics.jsonl").read_bytes())
    ]
    return Report(
        job=config.job.name,
        namespace=config.job.namespace,
        key=_key(config),
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        base_model=spec.model.uri,
        models=figures.models,
        gains=figures.gains,
        gates=figures.gates,
        sets=figures.sets,
        settings=settings(config, ran),
        artifacts=[
            artifact(name, ref, manifests[name], store.uri) for name, ref in config.inputs.items()
        ],
        curves=trained,
        transcripts=choose(greedy, rows, list(figures.models), spec.evaluate.seed),
        spec=semantic(spec),
    )


def _write_report(report: Report, rows: Sequence[Row], folder: Path) -> None:
    folder.mkdir()
    pictures = [[data_uri(image) for image in rows[t.row].images] for t in report.transcripts]
    text = report.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    (folder / "report.json").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(render(report, pictures), encoding="utf-8")
