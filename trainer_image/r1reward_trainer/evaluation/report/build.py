# SPDX-License-Identifier: Apache-2.0
"""Renders a report as one page that needs nothing else: no script, no file, no network."""

import base64
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from r1reward_trainer.evaluation.figures import Interval
from r1reward_trainer.evaluation.report.charts import charts
from r1reward_trainer.evaluation.report.document import Report
from r1reward_trainer.method.reasons import words

LONGEST_TEXT = 8000
"""Characters of an untrusted text that are shown."""

_HERE = Path(__file__).parent
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that have no shape of their own: controls, marks of direction, joiners,
tags, separators."""


def render(report: Report, pictures: Sequence[Sequence[str | None]]) -> str:
    """The page.

    Args:
        report: its content. All texts in it are untrusted and are escaped.
        pictures: for each transcript, its images as data URIs; None for one that is no image.
    """
    css = (_HERE / "report.css").read_text()
    template = _environment().get_template("report.html")
    return template.render(
        report=report,
        charts=charts(report, report.curves),
        samples=list(zip(report.transcripts, pictures, strict=True)),
        spec=json.dumps(report.spec, indent=2, ensure_ascii=False),
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
    )


def visible(text: str) -> str:
    """The text with its invisible and direction-changing characters spelt out, cut when long."""
    shown = "".join(map(_spelt, text[:LONGEST_TEXT]))
    rest = len(text) - LONGEST_TEXT
    return f"{shown}… ({rest} characters more)" if rest > 0 else shown


def _spelt(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _UNSEEN:
        return character
    return f"\\u{ord(character):04x}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=visible, words=words, interval=_interval, share=_share, size=_size
    )
    return environment


def _interval(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{count} B"
        size /= 1024
    return f"{size:.1f} GiB"
