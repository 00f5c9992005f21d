# SPDX-License-Identifier: Apache-2.0
"""A report of three models with known answers."""

import io
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from r1reward_api.resource.job import Gate
from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation import figures
from r1reward_trainer.evaluation.benchmarks import Benchmark
from r1reward_trainer.evaluation.predictions import HELDOUT, gold_in_order
from r1reward_trainer.evaluation.protocols import Protocol
from r1reward_trainer.evaluation.report.curves import curves
from r1reward_trainer.evaluation.report.document import Artifact, Report, Setting
from r1reward_trainer.evaluation.report.pictures import data_uri
from r1reward_trainer.evaluation.report.transcripts import choose
from tests.unit.evaluation.builders import Says, predictions, table

MODELS = ("base", "sft", "rl")
VOTES = (1, 3, 5)
SAMPLES = 400
SEED = 3
PROTOCOLS: tuple[Protocol, ...] = ("BothOrders", "SeededRandom", "Release")
GATES = (
    Gate(metric="Accuracy", minimum=0.8, not_worse_than="SFT"),
    Gate(metric="OrderAgreement", minimum=0.999),
)


def sometimes(given: Sequence[Row], share: float, seed: int) -> Says:
    """Right by chance in a share of the answers, silent in one of fifty."""
    generator = np.random.default_rng(seed)

    def says(position: int, order: str, _: int) -> int | None:
        if generator.random() < 0.02:
            return None
        gold = gold_in_order(given[position].gold, order)
        return gold if generator.random() < share else 3 - gold

    return says


def three_models(
    given: Sequence[Row], of: str = HELDOUT, benchmark: Benchmark | None = None
) -> pa.Table:
    """Predictions of base, sft and rl, each better than the one before."""
    shares = zip(MODELS, (0.5, 0.75, 0.95), strict=True)
    return table(
        *(
            predictions(
                given,
                sometimes(given, share, seed),
                votes=max(VOTES),
                model=model,
                of=of,
                benchmark=benchmark,
            )
            for seed, (model, share) in enumerate(shares)
        )
    )


def metrics_jsonl(steps: int, **slopes: float) -> bytes:
    """metrics.jsonl with straight lines."""
    return b"".join(
        json.dumps(
            {
                "step": step,
                "time": "2025-01-01T00:00:00Z",
                "metrics": {
                    name.replace("__", "/"): math.exp(k * step) for name, k in slopes.items()
                },
            }
        ).encode()
        + b"\n"
        for step in range(1, steps + 1)
    )


def png(side: int = 8) -> bytes:
    """A grey square."""
    out = io.BytesIO()
    Image.new("L", (side, side), 128).save(out, "PNG")
    return out.getvalue()


def report(
    said: pa.Table,
    given: Sequence[Row],
    sets: Mapping[str, Benchmark | None] | None = None,
    **changes: object,
) -> Report:
    """The report of these predictions."""
    rules = figures.Rules(VOTES, SAMPLES, SEED, GATES, PROTOCOLS, sets or {})
    found = figures.compute(said, MODELS, rules)
    rl = metrics_jsonl(60, reward__mean=0.01, loss=-0.01, response__length_mean=0.001)
    heldout = said.filter(pc.field("set") == HELDOUT)
    values = {
        "models": found.models,
        "gains": found.gains,
        "gates": found.gates,
        "sets": found.sets,
        "job": "digits",
        "namespace": "team-a",
        "key": "5" * 64,
        "created_at": "2025-01-01T00:00:00Z",
        "base_model": "s3://models/base",
        "settings": [Setting(name="RL", value="StableReinforce on all rows")],
        "artifacts": [
            Artifact(
                name="rl",
                stage="rl",
                key="6" * 64,
                uri="s3://bucket/team-a/stages/rl",
                digest="sha256:" + "7" * 64,
                bytes=5 * 2**20,
                rows=None,
                created_by="uid-1",
                created_at="2025-01-01T00:00:00Z",
            )
        ],
        "curves": curves("sft", metrics_jsonl(10, loss=-0.1)) + curves("rl", rl),
        "transcripts": choose(heldout, given, MODELS, SEED),
        "spec": {"rl": {"learningRate": 1e-6}},
        **changes,
    }
    return Report.model_validate(values)


def pictures(shown: Report, given: Sequence[Row]) -> list[list[str | None]]:
    """Of the report's transcripts."""
    return [[data_uri(i) for i in given[t.row].images] for t in shown.transcripts]
