# SPDX-License-Identifier: Apache-2.0
"""The report's charts, drawn as SVG data URIs that read on light and on dark pages."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r1reward_trainer.evaluation.figures import Figures
from r1reward_trainer.evaluation.report.curves import smoothed
from r1reward_trainer.evaluation.report.document import Curve

_INK = "#7d838c"
_COLOURS = ("#3b82c4", "#d9822b", "#3f9c6b", "#b0559d")
_SMOOTH_FROM = 20
"""Points from which a moving average is drawn over the raw curve."""


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: heading.
        uri: image as data URI.
        description: what it shows, in words.
    """

    title: str
    uri: str
    description: str


def charts(figures: Figures, curves: Sequence[Curve]) -> list[Chart]:
    """Accuracy, reliability where there are probabilities, then the training curves there are."""
    drawn = [_accuracy(figures)]
    if any(model.calibration for model in figures.models.values()):
        drawn.append(_reliability(figures))
    for title, stage, names, label in (
        ("Reward over RL steps", "rl", _REWARDS, "reward"),
        ("RL loss", "rl", {"loss": "loss"}, "loss"),
        ("Response length over RL steps", "rl", {"response/length_mean": "tokens"}, "tokens"),
        ("SFT loss", "sft", {"loss": "loss"}, "loss"),
    ):
        own = [c for c in curves if c.stage == stage and c.name in names]
        if own:
            drawn.append(_lines(title, own, names, label))
    return drawn


_REWARDS = {
    "reward/mean": "total",
    "reward/result": "result",
    "reward/format": "format",
    "reward/consistency": "consistency",
}


def _accuracy(figures: Figures) -> Chart:
    figure, axes = _canvas("accuracy")
    for position, model in enumerate(figures.models.values()):
        a = model.accuracy
        axes.bar(
            position, a.value, width=0.55, color=_COLOURS[position % len(_COLOURS)], alpha=0.85
        )
        axes.errorbar(
            position,
            a.value,
            yerr=[[max(0.0, a.value - a.low)], [max(0.0, a.high - a.value)]],
            color=_INK,
            capsize=5,
            linewidth=1.5,
        )
    axes.axhline(0.5, color=_INK, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(figures.models)), list(figures.models))
    axes.set_ylim(0, 1)
    said = "; ".join(f"{name} {m.accuracy}" for name, m in figures.models.items())
    return Chart(
        "Accuracy on held-out rows",
        _uri(figure),
        f"Greedy accuracy over both orders with 95 % intervals: {said}. Dotted: chance.",
    )


def _reliability(figures: Figures) -> Chart:
    figure, axes = _canvas("share right")
    axes.plot([0.5, 1], [0.5, 1], color=_INK, linestyle=":", linewidth=1)
    said: list[str] = []
    for colour, (name, model) in zip(cycle(_COLOURS), figures.models.items(), strict=False):
        if model.calibration is None:
            continue
        bins, most = model.calibration.bins, max(b.rows for b in model.calibration.bins)
        x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
        axes.plot(x, y, color=colour, label=name, linewidth=1)
        axes.scatter(x, y, [8 + 60 * b.rows / most for b in bins], color=colour, alpha=0.85)
        said.append(
            f"{name} "
            + ", ".join(f"{b.confidence:.2f} → {b.accuracy:.2f} ({b.rows} rows)" for b in bins)
        )
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("confidence", color=_INK)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=9)
    return Chart(
        "Reliability",
        _uri(figure),
        f"Mean confidence and share of right rows by bin: {'; '.join(said)}. Dotted: perfectly "
        "calibrated. Larger dots: more rows.",
    )


def _lines(title: str, curves: Sequence[Curve], names: dict[str, str], label: str) -> Chart:
    figure, axes = _canvas(label)
    for colour, curve in zip(_COLOURS, curves, strict=False):
        name = names[curve.name]
        if len(curve.values) < _SMOOTH_FROM:
            axes.plot(curve.steps, curve.values, color=colour, label=name, marker=".")
        else:
            axes.plot(curve.steps, curve.values, color=colour, alpha=0.3, linewidth=0.8)
            window = max(5, len(curve.values) // 20 | 1)
            axes.plot(curve.steps, smoothed(curve.values, window), color=colour, label=name)
    axes.set_xlabel("step", color=_INK)
    if len(curves) > 1:
        axes.legend(frameon=False, labelcolor=_INK, fontsize=9)
    said = "; ".join(
        f"{names[c.name]} from {c.values[0]:.3g} to {c.values[-1]:.3g}" for c in curves
    )
    return Chart(title, _uri(figure), f"{title}: {said}.")


def _canvas(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(axis="y", color=_INK, alpha=0.2)
    axes.set_ylabel(label, color=_INK)
    return figure, axes


def _uri(figure: Figure) -> str:
    out = io.BytesIO()
    # Text as paths, and neither date nor random ids: equal figures make equal files.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "r1reward"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"
