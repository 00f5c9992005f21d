# SPDX-License-Identifier: Apache-2.0
"""The arguments of `r1 data validate`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import Columns, DataSpec, Format
from r1reward_api.resource.runtime import ModelServing
from r1reward_trainer.outcome import ConfigurationError

if TYPE_CHECKING:  # reads what every container's start would otherwise wait for
    from r1reward_trainer.validation.validate import Options

_EPILOG = """\
Exit code 1: more rows are bad than --max-bad-rows allows, or none is good.

  r1 data validate rows/*.parquet
  r1 data validate all_data.json --format MultimodalRewardBench
  r1 data validate s3://data/pairs.csv --columns question=prompt,chosen=good,rejected=bad
  r1 data validate rows/*.parquet --job r1rewardjob.yaml --model Qwen2.5-VL-3B-Instruct
  r1 data validate rlaif/*.parquet --format RLAIFV --set vl=vl.parquet,VLRewardBench
"""


def add_parser(verbs: Any) -> None:
    """Adds `data validate` to the verbs of `r1`."""
    data = verbs.add_parser("data", help="look at preference data")
    parser = data.add_subparsers(dest="action", required=True).add_parser(
        "validate",
        help="check rows and print a report",
        description="Checks preference data and prints a report.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("uri", nargs="+", help="files or s3:// URIs; * matches within a folder")
    parser.add_argument("--format", choices=get_args(Format), default="Plain", help="of the rows")
    parser.add_argument("--columns", help="columns of Plain rows: question=prompt,images=file,…")
    parser.add_argument("--image-prefix", help="what stands for the file's folder in image paths")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=URI[,FORMAT]",
        help="an evaluation set with which the rows must share nothing; may be repeated",
    )
    parser.add_argument("--model", help="folder with a tokenizer, for lengths in tokens")
    parser.add_argument(
        "--job",
        metavar="FILE",
        help="manifest of an R1RewardJob: what its spec.data calls too long for a prompt is a bad "
        "row; needs --model",
    )
    parser.add_argument(
        "--max-images",
        type=int,
        default=ModelServing().images_per_prompt,
        help="most images in a row: the runtime's serving.imagesPerPrompt (%(default)s)",
    )
    parser.add_argument("--max-rows", type=int, help="read only the first rows")
    parser.add_argument("--max-bad-rows", type=int, default=0, help="how many may be bad")
    parser.add_argument("--quarantine", help="file to write all bad rows to, as JSONL")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace, out: Callable[[str], object] = sys.stdout.write) -> int:
    """Runs the verb, prints the report and returns the exit code.

    Raises:
        StageError: when something cannot be read at all.
    """
    from r1reward_trainer.validation.validate import validate, verdict

    report = validate(options(arguments))
    if arguments.json:
        import json

        out(json.dumps(report, indent=1) + "\n")
    else:
        from r1reward_trainer.validation.text import readable

        out(readable(report))
    return 0 if verdict(report) is None else 1


def options(arguments: argparse.Namespace) -> "Options":
    """The arguments, checked.

    Raises:
        ConfigurationError: naming the argument.
    """
    from r1reward_trainer.validation.validate import Options

    return Options(
        uris=arguments.uri,
        format=arguments.format,
        columns=_columns(arguments.columns),
        image_prefix=arguments.image_prefix,
        sets=_sets(arguments.set),
        model=arguments.model,
        prompts=_prompts(arguments.job),
        max_images=arguments.max_images,
        max_rows=arguments.max_rows,
        max_bad_rows=arguments.max_bad_rows,
        quarantine=arguments.quarantine,
    )


def _columns(text: str | None) -> Columns | None:
    if text is None:
        return None
    pairs = [pair.partition("=") for pair in text.split(",")]
    if broken := [ours for ours, equals, theirs in pairs if not (equals and theirs)]:
        raise _wrong(f"--columns {broken[0]}: write it as ours=theirs, such as question=prompt")
    _once("--columns", [ours.strip() for ours, _, _ in pairs])
    try:
        return Columns.model_validate({ours.strip(): theirs for ours, _, theirs in pairs})
    except ValidationError as error:
        names = ", ".join(Columns.model_fields)
        raise _wrong(f"--columns {error.errors()[0]['loc'][0]}: the names are {names}") from error


def _prompts(job: str | None) -> DataSpec | None:
    if job is None:
        return None
    import yaml

    try:
        found = yaml.safe_load(Path(job).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _wrong(f"--job {job} cannot be read as YAML: {str(error)[:200]}") from error
    match found:
        case {"kind": "R1RewardJob", "spec": {"data": dict(data)}}:
            pass
        case _:
            raise _wrong(f"--job {job} is no manifest of one R1RewardJob with a spec.data")
    try:
        return DataSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("spec", "data", *first["loc"])))
        raise _wrong(f"--job {job}: {place}: {first['msg']}") from error


def _sets(texts: Sequence[str]) -> dict[str, tuple[str, Format]]:
    sets = list(map(_set, texts))
    _once("--set", [name for name, _ in sets])
    return dict(sets)


def _once(flag: str, names: Sequence[str]) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise _wrong(f"{flag} names {twice[0]} twice: name it once")


def _set(text: str) -> tuple[str, tuple[str, Format]]:
    name, equals, rest = text.partition("=")
    uri, comma, found = rest.rpartition(",")
    if not comma:
        uri, found = rest, "Plain"
    if not (name and equals and uri):
        raise _wrong(f"--set {text}: write it as NAME=URI or NAME=URI,FORMAT")
    for known in get_args(Format):
        if found == known:
            return name, (uri, known)
    raise _wrong(f"--set {text}: {found} is no format; there are {', '.join(get_args(Format))}")


def _wrong(message: str) -> ConfigurationError:
    return ConfigurationError(Reason.INVALID_SPEC, message)
