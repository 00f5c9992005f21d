# SPDX-License-Identifier: Apache-2.0
"""The report's figures, recomputed from the predictions with plain Python, in JSON and page."""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1reward_trainer.evaluation.figures import summary
from r1reward_trainer.evaluation.report.build import render
from r1reward_trainer.evaluation.report.document import Report
from tests.unit.evaluation.builders import row, set_row
from tests.unit.evaluation.reports import MODELS, VOTES, pictures, png, report, three_models

SOURCES = ("charts", "scenes")
SHARES = (
    "chosen_first",
    "chosen_second",
    "both_right",
    "says_first",
    "order_agreement",
    "invalid",
    "truncated",
    "reflecting",
)
GIVEN = [row(i, images=(png(),), source=SOURCES[i % 2]) for i in range(60)]
VL = [
    set_row(i, item=f"{'mathverse_' if i % 3 else 'RLAIF-V-'}{i // 2}", category="", gold=1 + i % 2)
    for i in range(40)
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Any, str]:
    """Predictions, report.json and report.html as they are read back from files."""
    folder = tmp_path_factory.mktemp("written")
    said = pa.concat_tables([three_models(GIVEN), three_models(VL, "vl", "VL-RewardBench")])
    pq.write_table(said, folder / "predictions.parquet")
    shown = report(said, GIVEN, {"vl": "VL-RewardBench"})
    (folder / "report.json").write_text(shown.model_dump_json(by_alias=True))
    html = render(shown, pictures(shown, GIVEN))
    read = pq.read_table(folder / "predictions.parquet").to_pylist()
    return read, json.loads((folder / "report.json").read_text()), html


def of(
    predictions: list[dict[str, Any]], model: str, *samples: int, given: str = "heldout"
) -> list[dict[str, Any]]:
    return [
        p
        for p in predictions
        if (p["model"], p["set"]) == (model, given) and p["sample"] in (samples or (0,))
    ]


def mean(values: list[Any]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("model", MODELS)
def test_greedy_figures_are_those_of_the_predictions(written, model):
    predictions, figures, _ = written
    greedy = of(predictions, model)
    found = figures["models"][model]
    assert found["accuracy"]["value"] == pytest.approx(mean([p["correct"] for p in greedy]))
    for slot, name in ((1, "chosenFirst"), (2, "chosenSecond")):
        correct = [p["verdict"] == p["gold"] for p in greedy if p["gold"] == slot]
        assert found[name] == pytest.approx(mean(correct))
    verdicts = [p["verdict"] for p in greedy]
    assert found["invalid"] == pytest.approx(mean([v is None for v in verdicts]))
    assert found["saysFirst"] == pytest.approx(mean([v == 1 for v in verdicts if v]))
    pairs = defaultdict(dict)
    for p in greedy:
        pairs[p["row"]][p["order"]] = p["verdict"]
    agree = [{p["Given"], p["Swapped"]} == {1, 2} for p in pairs.values()]
    assert found["orderAgreement"] == pytest.approx(mean(agree))
    assert found["tokensMean"] == pytest.approx(mean([p["tokens"] for p in greedy]))


@pytest.mark.parametrize("model", MODELS)
def test_votes_are_those_of_the_predictions(written, model):
    predictions, figures, _ = written
    for vote in figures["models"][model]["votes"]:
        prompts = defaultdict(list)
        for p in of(predictions, model, *range(1, vote["k"] + 1)):
            prompts[p["row"], p["order"]].append(p)
        voting, any_ = [], []
        for answers in prompts.values():
            assert len(answers) == vote["k"]
            counts = Counter(p["verdict"] for p in answers if p["verdict"])
            gold = answers[0]["gold"]
            voting.append(counts[gold] > counts[3 - gold])
            any_.append(counts[gold] > 0)
        assert vote["voting"]["value"] == pytest.approx(mean(voting))
        assert vote["any"]["value"] == pytest.approx(mean(any_))
        assert (vote["weightedOpen"], vote["anyOpen"]) == (0, 0)
    assert [v["k"] for v in figures["models"][model]["votes"]] == [k for k in VOTES if k > 1]


def test_sources_are_those_of_the_predictions(written):
    predictions, figures, _ = written
    found = figures["models"]["rl"]
    by_source = defaultdict(list)
    for p in of(predictions, "rl"):
        by_source[p["source"]].append(p["correct"])
    assert {s["source"]: (s["rows"], pytest.approx(s["accuracy"])) for s in found["sources"]} == {
        source: (len(correct) // 2, mean(correct)) for source, correct in by_source.items()
    }


@pytest.mark.parametrize("model", MODELS)
def test_a_sets_scores_are_those_of_its_predictions_under_every_protocol(written, model):
    predictions, figures, _ = written
    (vl,) = figures["sets"]
    own = of(predictions, model, given="vl")
    right = defaultdict(list)
    for p in own:
        right[p["row"]].append(p["correct"])
    both = {row: mean(correct) for row, correct in right.items()}
    release = {p["row"]: p["released"] == 1 for p in own if p["gold"] == 1}
    for b in vl["models"][model]["benchmarks"]:
        if b["protocol"] == "SeededRandom":
            continue
        correct = both if b["protocol"] == "BothOrders" else release
        assert b["micro"] == pytest.approx(100 * mean(list(correct.values())))
        by_category = defaultdict(list)
        for p in own:
            hallucination = "General" if b["split"] == "CaseSensitive" else "Hallucination"
            name = hallucination if "RLAIF" in p["item"] else "Reasoning"
            if p["order"] == "Given":
                by_category[name].append(correct[p["row"]])
        found = {c["category"]: (c["pairs"], c["accuracy"]) for c in b["categories"]}
        expected = {n: (len(c), pytest.approx(100 * mean(c))) for n, c in by_category.items()}
        assert found == expected
        assert b["macro"] == pytest.approx(100 * mean([mean(c) for c in by_category.values()]))
    kinds = {(b["protocol"], b["split"]) for b in vl["models"][model]["benchmarks"]}
    assert len(kinds) == len(vl["models"][model]["benchmarks"]) == 6


def test_gains_are_differences_of_the_accuracies_and_lie_in_their_interval(written):
    _, figures, _ = written
    value = {m: f["accuracy"]["value"] for m, f in figures["models"].items()}
    assert [(g["after"], g["before"]) for g in figures["gains"]] == [
        ("sft", "base"),
        ("rl", "base"),
        ("rl", "sft"),
    ]
    for gain in figures["gains"]:
        a = gain["accuracy"]
        assert a["value"] == pytest.approx(value[gain["after"]] - value[gain["before"]])
        assert a["low"] < a["value"] < a["high"]


@pytest.mark.parametrize("model", MODELS)
def test_the_brier_score_is_that_of_the_log_odds_at_temperatures_of_other_rows(written, model):
    predictions, figures, _ = written
    rows = defaultdict(dict)
    for p in of(predictions, model):
        rows[p["row"]][p["order"]] = p
    margins, folds = [], []
    for orders in rows.values():
        given, swapped = (orders[order]["log_odds"] or 0 for order in ("Given", "Swapped"))
        margins.append((given - swapped) / 2 * (3 - 2 * orders["Given"]["gold"]))
        digest = hashlib.sha256(orders["Given"]["row_id"].encode()).digest()
        folds.append(int.from_bytes(digest[:8], "big") % 5)

    def likelihood(temperature: float, rows: list[float]) -> float:
        target = (len(rows) + 1) / (len(rows) + 2)
        return sum(
            -target * math.log1p(math.exp(-m / temperature))
            - (1 - target) * math.log1p(math.exp(m / temperature))
            for m in rows
        )

    grid = [0.1 * 1000 ** (i / 4000) * 10 ** (i / 4000) for i in range(4001)]
    pairs = list(zip(margins, folds, strict=True))
    best = {
        fold: max(grid, key=lambda t: likelihood(t, [m for m, f in pairs if f != fold]))
        for fold in set(folds)
    }
    errors = [1 / (1 + math.exp(m / best[f])) ** 2 for m, f in pairs]
    assert figures["models"][model]["calibration"]["brier"]["value"] == pytest.approx(
        mean(errors), rel=1e-2
    )


def test_mcnemar_counts_rows_that_one_model_alone_has_right_in_both_orders(written):
    predictions, figures, _ = written
    right = {
        model: {
            row
            for row, n in Counter(p["row"] for p in of(predictions, model) if p["correct"]).items()
            if n == 2
        }
        for model in MODELS
    }
    for gain in figures["gains"]:
        after, before = right[gain["after"]], right[gain["before"]]
        assert (gain["onlyAfter"], gain["onlyBefore"]) == (len(after - before), len(before - after))


def test_the_page_says_which_gate_was_not_passed(written):
    _, figures, html = written
    accuracy, agreement = figures["gates"]
    assert (accuracy["asked"], accuracy.get("failure")) == (
        "at least 0.8 and not worse than sft",
        None,
    )
    assert agreement["failure"] in html


def test_the_page_shows_the_figures_of_the_json(written):
    _, figures, html = written
    shown = dict(re.findall(r'data-figure="([^"]+)">([^<]*)<', html))
    expected = _expected(figures, "")
    for gain in figures["gains"]:
        if gain["after"] == "rl":
            a = gain["accuracy"]
            expected[f"gain/rl/{gain['before']}"] = (
                f"{a['value']:+.3f} [{a['low']:+.3f}, {a['high']:+.3f}]"
            )
    (vl,) = figures["sets"]
    expected |= _expected(vl, "vl:")
    for model, f in vl["models"].items():
        for b in f["benchmarks"]:
            expected[f"vl:{model}/{b['protocol']}/{b['split']}/micro"] = f"{b['micro']:.2f}"
    assert shown == expected


def _expected(figures: dict[str, Any], prefix: str) -> dict[str, str]:
    expected: dict[str, str] = {}
    for model, f in figures["models"].items():
        expected[f"{model}/accuracy"] = _interval(f["accuracy"])
        for p in f["protocols"][1:]:
            expected[f"{model}/{p['protocol']}"] = _interval(p["accuracy"])
        for name in SHARES:
            camel = re.sub("_(.)", lambda m: m[1].upper(), name)
            expected[f"{model}/{name}"] = f"{f[camel]:.3f}"
        lengths = (f["tokensMean"], f["tokensMedian"], f["tokensP95"])
        expected[f"{model}/tokens"] = "{:.1f}, {:.0f}, {:.0f}".format(*lengths)
        calibration = f["calibration"]
        expected[f"{model}/brier"] = _interval(calibration["brier"])
        for name in ("ece", "eceUncalibrated", "temperature", "known"):
            snake = "ece_uncalibrated" if name == "eceUncalibrated" else name
            expected[f"{model}/{snake}"] = f"{calibration[name]:.3f}"
        cost = (f["tokensPerJudgement"], f["secondsPerJudgement"])
        expected[f"{model}/cost"] = "{:.1f}, {:.3g}".format(*cost)
        for vote in f["votes"]:
            k = vote["k"]
            expected[f"{model}/voting@{k}"] = _interval(vote["voting"])
            expected[f"{model}/weighted@{k}"] = _interval(vote["weighted"])
            expected[f"{model}/any@{k}"] = _interval(vote["any"])
            expected[f"{model}/tied@{k}"] = f"{vote['tied']:.3f}"
            expected[f"{model}/silent@{k}"] = f"{vote['silent']:.3f}"
            expected[f"{model}/asked@{k}"] = f"{vote['asked']:.2f}"
    for gain in figures["gains"]:
        expected[f"p/{gain['after']}/{gain['before']}"] = f"{gain['pValue']:.2g}"
    return {f"{prefix}{name}": value for name, value in expected.items()}


def test_the_jobs_summary_has_the_last_models_accuracy_first(written):
    figures = Report.model_validate(written[1])
    found = summary(figures)
    rl = figures.models["rl"].accuracy
    assert found["accuracy"] == found["accuracy.rl"]
    assert found["accuracy"] == f"{rl.value:.3f} ± {(rl.high - rl.low) / 2:.3f}"
    assert list(found) == [
        "accuracy",
        "accuracy.base",
        "accuracy.sft",
        "accuracy.rl",
        "votes",
        "gates",
        "set.vl",
    ]
    assert found["gates"].startswith("failed: OrderAgreement ")
    assert re.fullmatch(r"@3 [01]\.\d{3} ± 0\.\d{3}, @5 [01]\.\d{3} ± 0\.\d{3}", found["votes"])


def _interval(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
