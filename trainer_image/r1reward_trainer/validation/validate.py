# SPDX-License-Identifier: Apache-2.0
"""Reads preference data as prepare does and says what it is like."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import Columns, DataSpec, Format
from r1reward_api.resource.runtime import ModelServing
from r1reward_trainer.data.contamination import Findings, Screen, contamination_warnings
from r1reward_trainer.data.formats.registry import importer_of
from r1reward_trainer.data.intake import Intake, take_in
from r1reward_trainer.data.objects import open_objects
from r1reward_trainer.data.quality import frame_warnings
from r1reward_trainer.data.rows import Row, SetRow
from r1reward_trainer.data.schema import parse_row, parse_set_row
from r1reward_trainer.data.sources import Source, find_files
from r1reward_trainer.data.tokens import token_counter
from r1reward_trainer.outcome import ConfigurationError

_BAD_EXAMPLES = 50
_TICK_ROWS = 10_000


@dataclass(frozen=True)
class Options:
    """What to check, and how strictly.

    Attributes:
        uris: files of this machine or s3:// URIs.
        format, columns, image_prefix: as in the job's data.preferences.
        sets: URI and format of evaluation sets, by name.
        model: folder with a tokenizer; None: no lengths in tokens.
        prompts: template and limits of a job, whose longer prompts are bad rows; needs a model
            folder with a processor. None: prompts may be of any length.
        max_images: most images in a row, as the runtime's serving.imagesPerPrompt.
        max_rows: reads only the first rows.
        max_bad_rows: how many rows may be bad.
        quarantine: file that gets all bad rows.
    """

    uris: Sequence[str]
    format: Format = "Plain"
    columns: Columns | None = None
    image_prefix: str | None = None
    sets: Mapping[str, tuple[str, Format]] = field(default_factory=dict)
    model: str | None = None
    prompts: DataSpec | None = None
    max_images: int = ModelServing().images_per_prompt
    max_rows: int | None = None
    max_bad_rows: int = 0
    quarantine: str | None = None


def validate(options: Options) -> dict[str, Any]:
    """The report, as JSON values.

    Raises:
        StageError: when something cannot be read at all.
    """
    importer = importer_of(options.format, options.columns)
    sources = [
        Source(find_files(uri, uri, open_objects), importer, options.image_prefix)
        for uri in options.uris
    ]
    sets = {
        name: Source(find_files(f"--set {name}", uri, open_objects), importer_of(format))
        for name, (uri, format) in options.sets.items()
    }
    check = _check(options)
    if options.quarantine is not None:
        _writable(options.quarantine)  # before hours of reading
    count_tokens = token_counter(Path(options.model)) if options.model else None
    with tempfile.TemporaryDirectory(prefix="r1-validate-") as folder:
        scratch = Path(folder)
        screen, judged = Screen(), {}
        for name, source in sets.items():
            judged[name] = _read_set(options, name, source, check, screen, scratch)
        findings = Findings({name: intake.quality.rows for name, intake in judged.items()})
        intake = take_in(
            sources,
            lambda record, media: parse_row(record, options.max_images, media),
            check,
            (lambda row: findings.note(row, screen.check(row))) if sets else _any,
            scratch / "bad-rows.jsonl",
            scratch,
            options.max_rows,
            _tick,
            count_tokens,
        )
        report = intake.quality.report(
            intake.quality.rows, 0, len({image for row in intake.images for image in row})
        )
        report |= {
            "maxBadRows": options.max_bad_rows,
            "badRowExamples": _bad_rows(scratch / "bad-rows.jsonl", options.quarantine),
        }
    del report["train"], report["heldout"]
    if sets:
        report["sets"] = {name: taken.quality.figures() for name, taken in judged.items()}
        for name, figures in report["sets"].items():
            report["warnings"] += frame_warnings(figures, f"rows of {name}")
        report["contamination"] = findings.figures()
        report["warnings"] += contamination_warnings(report["contamination"], removed=False)
    return report


def verdict(report: Mapping[str, Any]) -> str | None:
    """What is wrong with the data as a whole, None when it can be used."""
    limit = report["maxBadRows"]
    for name, figures in [("", report), *report.get("sets", {}).items()]:
        of = f"set {name}: " if name else ""
        if figures["rows"] == 0:
            return f"{of}no row is good"
        if figures["badRows"] > limit:
            return f"{of}{figures['badRows']} rows are bad, --max-bad-rows is {limit}"
    return None


def _read_set(
    options: Options,
    name: str,
    source: Source,
    check: Callable[[Row], None],
    screen: Screen,
    scratch: Path,
) -> Intake:
    def write(row: SetRow) -> None:
        screen.add(name, row)

    return take_in(
        [source],
        lambda record, media: parse_set_row(record, options.max_images, media),
        check,
        write,
        scratch / "bad-rows.jsonl",
        scratch,
        None,
        _tick,
    )


def _check(options: Options) -> Callable[[Row], None]:
    if options.prompts is None:
        return _any
    if options.model is None:
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            "--job: the lengths of prompts need --model, a folder with tokenizer and processor",
        )
    # Takes seconds, and is rarely wanted.
    from r1reward_trainer.data.prompts import PromptCheck, check_rendering

    check_rendering(Path(options.model), f"--model {options.model}", options.prompts)
    return PromptCheck(Path(options.model), options.prompts)


def _writable(quarantine: str) -> None:
    try:
        Path(quarantine).open("a").close()
    except OSError as error:
        raise ConfigurationError(
            Reason.INVALID_SPEC, f"--quarantine {quarantine} cannot be written: {error.strerror}"
        ) from error


def _any(_: Row) -> None:
    """Every row that can be read is good."""


def _bad_rows(found: Path, kept: str | None) -> list[dict[str, Any]]:
    if kept is not None:
        shutil.copyfile(found, kept)
    with found.open() as lines:
        return [json.loads(line) for line in islice(lines, _BAD_EXAMPLES)]


def _tick(rows: int) -> None:
    if rows % _TICK_ROWS == 0:
        sys.stderr.write(f"{rows} rows\n")
