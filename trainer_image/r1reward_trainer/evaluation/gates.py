# SPDX-License-Identifier: Apache-2.0
"""Whether the job's last weights reach what `evaluate.gates` ask for."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from r1reward_api.base import ApiModel
from r1reward_api.resource.job import Gate
from r1reward_trainer.evaluation import metrics
from r1reward_trainer.evaluation.bootstrap import bootstrap_gain
from r1reward_trainer.evaluation.predictions import Judgements

_BY_ROW: Mapping[str, Callable[[Judgements], NDArray[np.float64]]] = {
    "Accuracy": metrics.accuracy_by_row,
    "BothRight": metrics.both_right_by_row,
    "OrderAgreement": metrics.agreement_by_row,
    "ValidRate": metrics.valid_by_row,
}
"""[rows]: what each metric of a gate is the mean of."""


class GateFigures(ApiModel):
    """One gate and what became of it."""

    metric: str
    """The gate's metric."""
    asked: str
    """In words, what was asked for."""
    value: float
    """The figure of the last weights."""
    failure: str | None = None
    """What is missing, in words; none where the gate was passed."""


def judge_gates(
    gates: Sequence[Gate], judged: Mapping[str, Judgements], samples: int, seed: int
) -> list[GateFigures]:
    """Every gate against the last model's figures.

    Args:
        gates: of the job.
        judged: by model, in the order in which they were trained.
        samples: bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ValueError: a gate names weights that were not evaluated.
    """
    return [_judge(gate, judged, samples, seed) for gate in gates]


def failures(figures: Sequence[GateFigures]) -> list[str]:
    """What is missing, in words; empty when all gates were passed."""
    return [f.failure for f in figures if f.failure is not None]


def _judge(gate: Gate, judged: Mapping[str, Judgements], samples: int, seed: int) -> GateFigures:
    by_row, last = _BY_ROW[gate.metric], list(judged)[-1]
    values = by_row(judged[last])
    value = float(values.mean())
    asked, failed = [], []
    if gate.minimum is not None:
        asked.append(f"at least {gate.minimum:g}")
        if value < gate.minimum:
            failed.append(f"{gate.metric} {value:.3f} is below {gate.minimum:g}")
    if gate.not_worse_than is not None:
        baseline = gate.not_worse_than.lower()
        if baseline not in judged or baseline == last:
            raise ValueError(
                f"evaluate.gates: notWorseThan {gate.not_worse_than} was not evaluated before "
                f"{last}; evaluated: {', '.join(judged)}"
            )
        gain = bootstrap_gain(
            values, by_row(judged[baseline]), judged[last].clusters, samples, seed
        )
        asked.append(f"not worse than {baseline}")
        if gain.high < 0:
            failed.append(
                f"{gate.metric} {value:.3f} is worse than that of {baseline} by "
                f"{-gain.value:.3f} [{-gain.high:.3f}, {-gain.low:.3f}]"
            )
    return GateFigures(
        metric=gate.metric,
        asked=" and ".join(asked),
        value=value,
        failure="; ".join(failed) or None,
    )
