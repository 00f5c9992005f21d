# SPDX-License-Identifier: Apache-2.0
"""All figures of an evaluation, computed from its predictions and nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from r1reward_api import gates as gates_in_summary
from r1reward_api.base import ApiModel
from r1reward_api.resource.job import Gate
from r1reward_trainer.evaluation import benchmarks, metrics, probability
from r1reward_trainer.evaluation.bootstrap import Estimate, bootstrap_gain, bootstrap_mean
from r1reward_trainer.evaluation.gates import GateFigures, failures, judge_gates
from r1reward_trainer.evaluation.mcnemar import mcnemar
from r1reward_trainer.evaluation.predictions import GREEDY, Judgements, judgements
from r1reward_trainer.evaluation.protocols import Protocol, correct_by_row
from r1reward_trainer.evaluation.published import PUBLISHED, Published


class Interval(ApiModel):
    """A mean with its 95 % interval."""

    value: float
    """The mean."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""

    @classmethod
    def of(cls, estimate: Estimate) -> "Interval":
        """The wire form of an estimate."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high)

    def __str__(self) -> str:
        return str(Estimate(self.value, self.low, self.high))


class Voting(ApiModel):
    """Voting and any at one K."""

    k: int
    """Votes that count."""
    voting: Interval
    """The majority is right, mean over both orders."""
    weighted: Interval
    """As voting, each vote by the calibrated probability of its verdict; of the votes that were
    asked for."""
    weighted_open: float
    """Share of prompts whose weighted vote those which were not asked for might turn."""
    any: Interval
    """Any vote is right, mean over both orders; of the votes that were asked for."""
    any_open: float
    """Share of prompts that votes which were not asked for might add to `any`."""
    any_by_chance: float
    """What `any` is for a coin."""
    tied: float
    """Share of prompts with a tied vote; voting calls them wrong."""
    silent: float
    """Share of prompts without a verdict among the votes; voting calls them wrong."""
    asked: float
    """Mean number of votes a prompt that were asked for."""


class ProtocolFigures(ApiModel):
    """The greedy answers as others ask and count."""

    protocol: Protocol
    """Which."""
    accuracy: Interval
    """Share of rows that is right."""


class SourceFigures(ApiModel):
    """One data source."""

    source: str
    """Its name in the rows."""
    rows: int
    """Held-out rows from it."""
    accuracy: float
    """Greedy, mean over both orders."""


class CategoryFigures(ApiModel):
    """One category of a benchmark."""

    category: str
    """Its name."""
    pairs: int
    """Pairs in it."""
    accuracy: float
    """In percent."""


class BenchmarkFigures(ApiModel):
    """A set's scores in percent, by its benchmark's own rules."""

    benchmark: str | None
    """Whose rules; none for other sets, which are scored by their categories."""
    protocol: Protocol
    """How the answers were asked and counted."""
    split: Literal["Official", "CaseSensitive"]
    """CaseSensitive: VL-RewardBench as the released scorer splits it, which takes RLHF-V and
    RLAIF-V for General: its categories and macro cannot be compared with the leaderboard's."""
    pairs: int
    """Pairs judged."""
    categories: list[CategoryFigures]
    """By category."""
    micro: float
    """Share of all pairs."""
    macro: float
    """Unweighted mean of the categories: the paper's Overall of Multimodal RewardBench."""
    accuracy_plus: float | None = None
    """ACC+ of MM-RLHF-RewardBench."""


class ReliabilityBin(ApiModel):
    """Rows of nearly the same confidence."""

    low: float
    """Lower end of the confidence."""
    high: float
    """Upper end."""
    rows: int
    """How many."""
    confidence: float
    """Their mean confidence."""
    accuracy: float
    """Share of them that is right."""


class Calibration(ApiModel):
    """Whether the model is as often right as it is sure: over the probability that answer 1 is
    better, of the greedy answers in both orders. Every row's temperature is fitted on other
    rows."""

    known: float
    """Share of the answers whose verdict has log-odds; the others count as even odds."""
    temperature: float
    """Fitted on all rows, for use on other data: P = 1 / (1 + exp(-log_odds / temperature))."""
    brier: Interval
    """Mean squared error of the probability; 0.25 for one that knows nothing."""
    ece: float
    """Expected calibration error."""
    ece_uncalibrated: float
    """The same at temperature 1."""
    bins: list[ReliabilityBin]
    """Confidence against accuracy, rising; without empty bins."""


class ModelFigures(ApiModel):
    """One model on one set."""

    rows: int
    """Rows; each is asked in both orders."""
    clusters: int
    """Groups of rows that share an image or a benchmark's item; intervals draw whole groups."""
    accuracy: Interval
    """Greedy, mean over both orders."""
    chosen_first: float
    """Accuracy where the better answer stands first: the published protocol."""
    chosen_second: float
    """Accuracy where it stands second."""
    protocols: list[ProtocolFigures]
    """As `evaluate.protocols` asks for."""
    both_right: float
    """Share of rows right in both orders."""
    says_first: float | None
    """Share of 1 among the verdicts; none without a verdict."""
    order_agreement: float
    """Share of rows in which both orders choose the same answer."""
    invalid: float
    """Share of answers without a verdict."""
    truncated: float
    """Share of answers that were cut."""
    tokens_mean: float
    """Length of the answers."""
    tokens_median: float
    """Its median."""
    tokens_p95: float
    """Its 95th percentile."""
    reflecting: float
    """Share of answers with a phrase that goes back on what was said before."""
    tokens_per_judgement: float
    """Mean tokens of an answer, votes included."""
    seconds_per_judgement: float
    """Mean time of an answer, votes included, all servers together."""
    calibration: Calibration | None = None
    """None where no answer has log-odds."""
    votes: list[Voting]
    """Voting and any for each K above 1."""
    sources: list[SourceFigures]
    """By data source."""
    benchmarks: list[BenchmarkFigures]
    """By the rules of the set's benchmark; empty for rows without categories."""


class Gain(ApiModel):
    """One model against another over the same rows, paired."""

    after: str
    """The later model."""
    before: str
    """The earlier one."""
    accuracy: Interval
    """Difference of the greedy accuracies."""
    only_after: int
    """Rows that only the later model has right in both orders."""
    only_before: int
    """Rows that only the earlier one has."""
    p_value: float
    """Of McNemar's exact test on those two counts, two-sided."""


class SetFigures(ApiModel):
    """All models on one of `evaluate.sets`."""

    name: str
    """The set's name."""
    benchmark: str | None = None
    """By whose rules it is scored."""
    models: dict[str, ModelFigures]
    """By name, in the order in which they were trained."""
    gains: list[Gain]
    """Every later model against every earlier one."""
    published: list[Published] = []
    """What others have published on the benchmark, which was not measured here."""


@dataclass(frozen=True)
class Rules:
    """How figures are made of predictions.

    Attributes:
        votes: the Ks of voting@K; 1 is the greedy answer and no voting.
        samples: bootstrap resamples.
        seed: of the bootstrap and of the drawn order.
        gates: which the last model must pass.
        protocols: whose figures are wanted.
        sets: further sets, by name with the benchmark that they are.
    """

    votes: Sequence[int]
    samples: int
    seed: int
    gates: tuple[Gate, ...] = ()
    protocols: tuple[Protocol, ...] = ("BothOrders",)
    sets: Mapping[str, benchmarks.Benchmark | None] = field(
        default_factory=dict[str, benchmarks.Benchmark | None]
    )


class Figures(ApiModel):
    """All figures."""

    models: dict[str, ModelFigures]
    """On the held-out rows, by name, in the order in which they were trained: base, sft, rl."""
    gains: list[Gain]
    """Every later model against every earlier one."""
    gates: list[GateFigures] = []
    """What the last model had to reach."""
    sets: list[SetFigures] = []
    """On further sets."""

    @property
    def last(self) -> ModelFigures:
        """The model that the job is about: the last one trained."""
        return list(self.models.values())[-1]


def compute(predictions: pa.Table, models: Sequence[str], rules: Rules) -> Figures:
    """Figures from predictions.

    Args:
        predictions: with at least FIGURE_COLUMNS.
        models: in the order in which they were trained.
        rules: how.
    """
    judged = {model: judgements(predictions, model) for model in models}
    return Figures(
        models={m: _model(judged[m], rules, None) for m in models},
        gains=_gains(judged, rules),
        gates=judge_gates(rules.gates, judged, rules.samples, rules.seed),
        sets=[
            _set(name, benchmark, {m: judgements(predictions, m, name) for m in models}, rules)
            for name, benchmark in rules.sets.items()
        ],
    )


def _set(
    name: str,
    benchmark: benchmarks.Benchmark | None,
    judged: Mapping[str, Judgements],
    rules: Rules,
) -> SetFigures:
    return SetFigures(
        name=name,
        benchmark=benchmark,
        models={m: _model(j, rules, benchmark) for m, j in judged.items()},
        gains=_gains(judged, rules),
        published=PUBLISHED[benchmark] if benchmark else [],
    )


def summary(figures: Figures) -> dict[str, str]:
    """Strings for status.summary; `accuracy` is the last model's."""
    last = figures.last
    return {
        "accuracy": str(last.accuracy),
        **{f"accuracy.{name}": str(m.accuracy) for name, m in figures.models.items()},
        **({"votes": ", ".join(f"@{v.k} {v.voting}" for v in last.votes)} if last.votes else {}),
        **(
            {gates_in_summary.KEY: gates_in_summary.told(failures(figures.gates))}
            if figures.gates
            else {}
        ),
        **{f"set.{s.name}": str(list(s.models.values())[-1].accuracy) for s in figures.sets},
    }


def _gains(judged: Mapping[str, Judgements], rules: Rules) -> list[Gain]:
    return [
        _gain(after, before, judged[after], judged[before], rules)
        for before, after in combinations(judged, 2)
    ]


def _gain(after: str, before: str, later: Judgements, earlier: Judgements, rules: Rules) -> Gain:
    difference = bootstrap_gain(
        metrics.accuracy_by_row(later),
        metrics.accuracy_by_row(earlier),
        later.clusters,
        rules.samples,
        rules.seed,
    )
    test = mcnemar(metrics.both_right_by_row(later) == 1, metrics.both_right_by_row(earlier) == 1)
    return Gain(
        after=after,
        before=before,
        accuracy=Interval.of(difference),
        only_after=test.only_after,
        only_before=test.only_before,
        p_value=test.p_value,
    )


def _model(
    judged: Judgements, rules: Rules, benchmark: benchmarks.Benchmark | None
) -> ModelFigures:
    first, second = metrics.accuracy_by_slot(judged)
    says_first = metrics.says_first(judged)
    mean, median, p95 = metrics.response_lengths(judged)
    by_row = metrics.accuracy_by_row(judged)

    def interval(values: np.ndarray[Any, Any]) -> Interval:
        return Interval.of(bootstrap_mean(values, judged.clusters, rules.samples, rules.seed))

    return ModelFigures(
        rows=len(judged.items),
        clusters=len(np.unique(judged.clusters)),
        accuracy=interval(by_row),
        chosen_first=first,
        chosen_second=second,
        protocols=[
            ProtocolFigures(
                protocol=protocol, accuracy=interval(correct_by_row(judged, protocol, rules.seed))
            )
            for protocol in rules.protocols
        ],
        both_right=float(metrics.both_right_by_row(judged).mean()),
        says_first=None if math.isnan(says_first) else says_first,
        order_agreement=float(metrics.agreement_by_row(judged).mean()),
        invalid=1 - float(metrics.valid_by_row(judged).mean()),
        truncated=metrics.truncated_rate(judged),
        tokens_mean=mean,
        tokens_median=median,
        tokens_p95=p95,
        reflecting=metrics.reflecting(judged),
        tokens_per_judgement=metrics.tokens_per_judgement(judged),
        seconds_per_judgement=metrics.seconds_per_judgement(judged),
        calibration=_calibration(judged, rules),
        votes=[
            Voting(
                k=k,
                voting=interval(metrics.voting_by_row(judged, k)),
                weighted=interval(metrics.weighted_voting_by_row(judged, k)),
                weighted_open=metrics.weighted_open_share(judged, k),
                any=interval(metrics.any_by_row(judged, k)),
                any_open=metrics.any_open_share(judged, k),
                any_by_chance=metrics.chance_of_any(k),
                tied=metrics.tied_share(judged, k),
                silent=metrics.silent_share(judged, k),
                asked=metrics.votes_asked(judged, k),
            )
            for k in sorted(set(rules.votes))
            if k > 1
        ],
        sources=by_source(judged.sources, by_row),
        benchmarks=_benchmarks(judged, rules, benchmark),
    )


def _calibration(judged: Judgements, rules: Rules) -> Calibration | None:
    known = float(np.isfinite(judged.log_odds[:, :, GREEDY]).mean())
    if not known:
        return None
    margins = metrics.margin_by_row(judged)
    calibrated = margins / probability.cross_fitted(margins, judged.items)
    bins = probability.reliability(calibrated)
    brier = bootstrap_mean(
        probability.brier_by_row(calibrated), judged.clusters, rules.samples, rules.seed
    )
    return Calibration(
        known=known,
        temperature=probability.fit_temperature(margins),
        brier=Interval.of(brier),
        ece=probability.expected_calibration_error(bins),
        ece_uncalibrated=probability.expected_calibration_error(probability.reliability(margins)),
        bins=[ReliabilityBin.model_validate(asdict(b)) for b in bins],
    )


def by_source(names: Sequence[str], by_row: np.ndarray[Any, Any]) -> list[SourceFigures]:
    """Figures of each source, in the order of their names. Every row may have one of its own.

    Args:
        names: [rows], of the sources.
        by_row: [rows], how right the judge is.
    """
    places = {name: place for place, name in enumerate(sorted(set(names)))}
    place = np.array([places[name] for name in names], dtype=np.int64)
    rows, right = np.bincount(place), np.bincount(place, weights=by_row)
    return [
        SourceFigures(source=name, rows=int(count), accuracy=float(share))
        for name, count, share in zip(places, rows, right / rows, strict=True)
    ]


def _benchmarks(
    judged: Judgements, rules: Rules, benchmark: benchmarks.Benchmark | None
) -> list[BenchmarkFigures]:
    if benchmark is None and not any(judged.categories):
        return []
    splits = ["Official", *(["CaseSensitive"] if benchmark == "VL-RewardBench" else [])]
    found: list[BenchmarkFigures] = []
    for protocol in rules.protocols:
        correct = correct_by_row(judged, protocol, rules.seed)
        pairs = [
            benchmarks.Judged(item, float(right), category)
            for item, right, category in zip(judged.items, correct, judged.categories, strict=True)
        ]
        for split in splits:
            scores = benchmarks.score(benchmark, pairs, release_compatible=split != "Official")
            found.append(
                BenchmarkFigures.model_validate(
                    {
                        "benchmark": benchmark,
                        "protocol": protocol,
                        "split": split,
                        "pairs": len(pairs),
                        "categories": [
                            {"category": name, "pairs": s.total, "accuracy": s.accuracy}
                            for name, s in scores.categories.items()
                        ],
                        "micro": scores.micro,
                        "macro": scores.macro,
                        "accuracy_plus": scores.accuracy_plus,
                    }
                )
            )
    return found
