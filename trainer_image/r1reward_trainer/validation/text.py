# SPDX-License-Identifier: Apache-2.0
"""The report as text for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from r1reward_trainer.validation.validate import verdict

_SHOWN_BAD_ROWS = 20
_SHOWN_CHARACTERS = 600
_SHOWN_MATCHES = 5


def readable(report: Mapping[str, Any]) -> str:
    """The report, a fact a line. What stands in the data cannot steer the terminal."""
    return "\n".join(map(_printable, _lines(report))) + "\n"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    bad = _named(report["badReasons"])
    yield f"rows           {report['rows']} good, {report['badRows']} bad{bad}"
    if report["leftOut"]:
        yield f"left out       {sum(report['leftOut'].values())}{_named(report['leftOut'])}"
    yield f"images         {report['images']} different"
    for name, unit in (("width", "pixels"), ("height", "pixels"), ("perRow", "images in a row")):
        yield from _quantiles(name, report["imageSizes"][name], unit)
    for name, found in report["characters"].items():
        yield from _quantiles(name, found, "characters")
    for name, found in report.get("tokens", {}).items():
        yield from _quantiles(name, found, "tokens")
    gold = report["goldAsRead"]
    yield f"gold           1 in {gold['1']} rows, 2 in {gold['2']}"
    yield f"longer better  in {100 * report['longerIsBetter']:.1f} % of the rows"
    found = report["duplicates"]
    yield (
        f"duplicates     {found['exact']} exact, {found['swapped']} swapped, "
        f"{found['conflicting']} conflicting"
    )
    for example in found["examples"][:_SHOWN_MATCHES]:
        yield f"               {example['row']} of {example['of']} ({example['kind']})"
    if len(report["sources"]) > 1:
        yield f"sources        {_named(report['sources']).strip(' ()')}"
    for name, matches in report.get("contamination", {}).get("sets", {}).items():
        yield (
            f"against {name}: {matches['givenAway']} of its {matches['rows']} rows are given away "
            f"by {matches['byImage']} rows through an image, by {matches['byText']} through text"
        )
        for entry in matches["examples"][:_SHOWN_MATCHES]:
            yield (
                f"               {entry['row']} and {entry['item']}: {entry['shared']}, "
                f"{100 * entry['likeness']:.0f} % alike"
            )
    for bad in report["badRowExamples"][:_SHOWN_BAD_ROWS]:
        detail = bad["detail"][:_SHOWN_CHARACTERS]
        yield f"bad row        {bad['source']} line {bad['line']}: {bad['reason']}: {detail}"
    if report["badRows"] > _SHOWN_BAD_ROWS:
        yield "               … --quarantine FILE writes all of them"
    yield from (f"warning        {warning}" for warning in report["warnings"])
    wrong = verdict(report)
    yield "result         good" if wrong is None else f"result         NOT GOOD: {wrong}"


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _quantiles(name: str, found: Mapping[str, float], unit: str) -> Iterator[str]:
    if found:
        yield (
            f"{name:14} median {found['p50']}, 95 % {found['p95']}, 99 % {found['p99']}, "
            f"longest {found['max']} {unit}"
        )


def _named(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{n} {name}' for name, n in counts.items())})" if counts else ""
