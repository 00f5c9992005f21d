# SPDX-License-Identifier: Apache-2.0
"""A whole run of `r1 score`: its files are found and scored, and what came of it is summed up."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from r1reward_api.canonical import canonical_json
from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.scoring.batch import Options, part_name, score_file
from r1reward_trainer.scoring.files import (
    InputFile,
    Output,
    find_inputs,
    json_line,
    open_output,
)
from r1reward_trainer.scoring.protocol import ModelInfo
from r1reward_trainer.scoring.spread import spread
from r1reward_trainer.scoring.target import connected

RUN = "run.json"
SUMMARY = "summary.json"


def score_files(pattern: str, options: Options) -> dict[str, Any]:
    """Scores all rows of all files; returns the summary, which is also written.

    Raises:
        ConfigurationError: bad input, a token that is refused, or an output of another run.
        InfrastructureError: the model or storage is out for too long.
    """
    files = find_inputs(pattern)
    options = replace(options, processes=min(options.processes, len(files)))
    output = open_output(options.output)
    model = asyncio.run(_model(options))
    weights = model.weights
    claim(output, files, model)
    if options.processes > 1:
        spread(files, options, weights)
    else:
        for file in files:
            score_file(file, options, weights)
    summary = summarise(output, files, model)
    output.put(SUMMARY, json_line(summary))
    return summary


def claim(output: Output, files: Sequence[InputFile], model: ModelInfo) -> None:
    """Makes the output this run's, or finds that it is already.

    Raises:
        ConfigurationError: it has scores of other files, weights or temperature.
    """
    mine = {
        "inputs": [[f.uri, f.version] for f in files],
        "weights": model.weights,
        "temperature": model.temperature,
    }
    there = output.get(RUN)
    if there is None:
        if output.names():
            raise ConfigurationError(
                Reason.INVALID_SPEC, "--output is not empty, and no run of this: name another one"
            )
        output.put(RUN, json_line(mine))
    elif json.loads(there) != mine:
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            "--output holds scores of other weights, by another temperature, or of other files or "
            "files that have changed since: name another one",
        )


async def _model(options: Options) -> ModelInfo:
    async with connected(options.target) as scorer:
        return await options.patience().call(scorer.model)


def summarise(output: Output, files: Sequence[InputFile], model: ModelInfo) -> dict[str, Any]:
    """Figures over all parts, read one after another."""
    names = output.names()
    rows = bad = undecided = pairs = agreed = cyclic = 0
    for file in files:
        number = 0
        while (name := part_name(file, number)) in names:
            for text in (output.get(name) or b"").splitlines():
                line = json.loads(text)
                rows += 1
                if "error" in line:
                    bad += 1
                    continue
                undecided += line["verdict"] is None
                cyclic += bool(line["cycles"])
                pairs += len(line["comparisons"])
                agreed += sum(pair["ordersAgree"] for pair in line["comparisons"])
            number += 1
    return {
        "rows": rows,
        "badRows": bad,
        "withoutVerdict": undecided,
        "withCycles": cyclic,
        "comparisons": pairs,
        "orderAgreement": agreed / pairs if pairs else None,
        "weights": model.weights,
        "temperature": model.temperature,
        "inputs": hashlib.sha256(canonical_json([[f.uri, f.version] for f in files])).hexdigest(),
    }
