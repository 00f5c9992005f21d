# SPDX-License-Identifier: Apache-2.0
"""How a model is asked, with the real renderer and a judge whose answers are known."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation.judging import Answering, AskingRules, judge_rows
from r1reward_trainer.evaluation.predictions import HELDOUT, judgements, to_table
from r1reward_trainer.evaluation.sets import EvaluationSet, evaluation_set
from r1reward_trainer.render import Renderer
from r1reward_trainer.rollout import Completion, GenerateRequest, GenerateResult
from tests.digits.model import build_processor
from tests.digits.rows import TEMPLATE, digits, encode
from tests.unit.evaluation.builders import row

RULES = AskingRules(votes=(3,), early_stop=False, temperature=1.0, max_new_tokens=24, seed=7)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(
        build_processor(), template=TEMPLATE, min_pixels=784, max_pixels=3136, max_prompt_tokens=96
    )


class AlwaysSays:
    """Answers every prompt with the same text and keeps the requests."""

    def __init__(self, renderer: Renderer, text: str) -> None:
        self._ids = renderer.response_ids(text)
        self.requests: list[GenerateRequest] = []

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        self.requests += requests
        one = Completion(self._ids, tuple(0.0 for _ in self._ids), "stop")
        return [
            GenerateResult(r.id, r.token_ids, (one,) * r.sampling.n, "rl-1", "server")
            for r in requests
        ]


def of(given: dict[int, Row]) -> EvaluationSet:
    """Held-out rows by their positions."""
    rows = [given.get(i, row(i)) for i in range(max(given) + 1)]
    return evaluation_set(HELDOUT, None, rows, sorted(given))


def ask(given: dict[int, Row], renderer: Renderer, judge: Answering, rules: AskingRules = RULES):
    return judge_rows(of(given), sorted(given), "rl", "rl-1", rules, renderer, judge)


def image(number: int) -> tuple[bytes, ...]:
    return (encode(digits().pixels[number]),)


def test_both_orders_are_asked_greedily_and_by_seeded_votes(renderer):
    judge = AlwaysSays(renderer, "<think>x</think><answer>1</answer>")
    ask({5: row(5, images=image(0))}, renderer, judge)
    asked = [(r.sampling.temperature, r.sampling.n, r.sampling.max_tokens) for r in judge.requests]
    assert asked == [(0.0, 1, 24)] * 2 + [(1.0, 3, 24)] * 2
    given, swapped, _, _ = (renderer.decode(r.token_ids) for r in judge.requests)
    assert "1:seven 2:nine" in given
    assert "1:nine 2:seven" in swapped
    assert {r.sampling.stop_token_ids for r in judge.requests} == {(renderer.end_token_id,)}
    seeds = {(r.seed, r.token_ids) for r in judge.requests}
    assert len({seed for seed, _ in seeds}) == 2
    assert all(r.images for r in judge.requests)


def test_a_judge_that_always_says_1_is_right_in_one_order_of_every_row(renderer):
    judge = AlwaysSays(renderer, "<think>x</think><answer>1</answer>")
    said = ask({i: row(i, images=image(i)) for i in range(4)}, renderer, judge)
    arrays = judgements(to_table(said), "rl")
    assert arrays.correct.mean(axis=1).tolist() == [[0.5] * 4] * 4
    assert {p.response for p in said} == {"<think>x</think><answer>1</answer>"}


def test_the_same_row_is_sampled_with_the_same_seed_in_any_chunk(renderer):
    def seeds(positions: Sequence[int]) -> dict[str, int | None]:
        judge = AlwaysSays(renderer, "x")
        ask({i: row(i, images=image(i)) for i in positions}, renderer, judge)
        texts = [renderer.decode(r.token_ids) + str(r.images) for r in judge.requests]
        return dict(zip(texts, (r.seed for r in judge.requests), strict=True))

    together, apart = seeds([1, 2]), seeds([2])
    assert apart.items() <= together.items()


def test_a_prompt_that_is_too_long_counts_as_wrong_and_is_not_sent(renderer):
    judge = AlwaysSays(renderer, "<answer>1</answer>")
    said = ask({0: row(0, question="seven " * 200, images=image(0))}, renderer, judge)
    assert judge.requests == []
    assert len(said) == RULES.answers_per_row
    assert {(p.response, p.verdict, p.correct) for p in said} == {("", None, False)}


def test_what_is_no_verdict_is_kept_as_text_and_counts_as_none(renderer):
    judge = AlwaysSays(renderer, "<answer>1</answer><answer>2</answer>")
    said = ask({0: row(0, images=image(0))}, renderer, judge)
    assert {p.verdict for p in said} == {None}
    assert all(a.sample < b.sample or a.order != b.order for a, b in pairwise(said))


class Votes:
    """Answers greedily with 1, and votes as told, in the order in which they are asked for."""

    def __init__(self, renderer: Renderer, *votes: int) -> None:
        self._ids = [renderer.response_ids(f"<think>x</think><answer>{v}</answer>") for v in votes]
        self._seeds: list[int] = []
        self.rounds: list[list[int]] = []

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        votes = [r for r in requests if r.sampling.temperature]
        self.rounds.append([r.sampling.n for r in votes])
        return [GenerateResult(r.id, r.token_ids, self._answers(r), "rl-1", "s") for r in requests]

    def _answers(self, request: GenerateRequest) -> tuple[Completion, ...]:
        if not request.sampling.temperature:
            return (self._completion(0),)
        first = min(self._seeds, default=request.seed or 0)
        self._seeds.append(first)
        at = (request.seed or 0) - first  # vote k has the seed of the first plus k
        return tuple(self._completion(at + i) for i in range(request.sampling.n))

    def _completion(self, at: int) -> Completion:
        ids = self._ids[at]
        return Completion(ids, tuple(0.0 for _ in ids), "stop")


@pytest.mark.parametrize(
    ("votes", "rounds"),
    [
        ((1, 1, 1, 2, 2), [3]),
        ((1, 1, 2, 1, 2), [3, 1]),
        ((1, 2, 1, 2, 1), [3, 1, 1]),
    ],
)
def test_votes_are_asked_for_in_rounds_until_the_majority_is_settled(renderer, votes, rounds):
    stop = replace(RULES, votes=(5,), early_stop=True)
    judge = Votes(renderer, *votes)
    given = row(0, images=image(0))
    # One prompt alone, so that the judge knows whose seed it sees.
    question = of({0: given})
    said = judge_rows(question, [0], "rl", "rl-1", stop, renderer, _OneOrder(judge))
    assert [n[0] for n in judge.rounds if n] == rounds
    own = [p.verdict for p in said if p.order == "Given"]
    assert own == [votes[0], *votes[: sum(rounds)]]


class _OneOrder:
    """Passes on the prompts of the row's own order; the others get the same answers."""

    def __init__(self, judge: Votes) -> None:
        self._judge = judge

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        given = [r for r in requests if int(r.id.partition(":")[0]) == 0]
        answers = zip(given, self._judge.generate(given), strict=True)
        answered = {r.sampling.temperature: answer for r, answer in answers}
        return [replace(answered[r.sampling.temperature], id=r.id) for r in requests]


def test_a_verdicts_log_odds_come_from_the_digit_behind_the_tag(renderer):
    class Sure(AlwaysSays):
        def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
            rivals = requests[0].sampling.rival_ids
            assert [renderer.decode([r]) for r in rivals] == ["1", "2"]
            digits = {i: (-0.25, -1.75) for i, t in enumerate(self._ids) if t in rivals}
            one = Completion(self._ids, tuple(0.0 for _ in self._ids), "stop", digits)
            answers = [(one,) * r.sampling.n for r in requests]
            return [
                GenerateResult(r.id, r.token_ids, a, "rl-1", "s")
                for r, a in zip(requests, answers, strict=True)
            ]

    judge = Sure(renderer, "<think>x</think><answer>1</answer>")
    said = ask({0: row(0, images=image(0))}, renderer, judge)
    assert {p.log_odds for p in said} == {1.5}
    silent = Sure(renderer, "<answer>1</answer><answer>1</answer>")
    assert {p.log_odds for p in ask({0: row(0, images=image(0))}, renderer, silent)} == {None}
