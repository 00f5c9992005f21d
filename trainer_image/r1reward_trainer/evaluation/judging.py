# SPDX-License-Identifier: Apache-2.0
"""Asking one model for its verdicts: rows to prompts in both orders, answers to predictions."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation.predictions import GREEDY, ORDERS, Prediction, gold_in_order
from r1reward_trainer.evaluation.probability import verdict_log_odds
from r1reward_trainer.evaluation.protocols import released_choice
from r1reward_trainer.evaluation.reflection import reflections
from r1reward_trainer.evaluation.sets import EvaluationSet, category_of, item_of
from r1reward_trainer.method.verdict import parse_verdict
from r1reward_trainer.method.voting import votes_needed
from r1reward_trainer.render import Prompt, PromptTooLong, Renderer
from r1reward_trainer.rollout import Completion, GenerateRequest, GenerateResult, Sampling


class Answering(Protocol):
    """What answers prompts: a RolloutFleet."""

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """Answers in the order of the requests."""
        ...


@dataclass(frozen=True)
class AskingRules:
    """How every model is asked.

    Attributes:
        votes: the Ks of voting@K above 1, whose votes are sampled at `temperature` besides the
            greedy answer; empty for none.
        early_stop: votes are asked for in rounds, and none that cannot change a majority.
        temperature: of the votes.
        max_new_tokens: longest answer.
        seed: of the votes.
    """

    votes: tuple[int, ...]
    early_stop: bool
    temperature: float
    max_new_tokens: int
    seed: int

    @property
    def answers_per_row(self) -> int:
        """Predictions that come of a row at most."""
        return len(ORDERS) * (1 + max(self.votes, default=0))

    def more_votes(self, votes: Sequence[int | None]) -> int:
        """How many votes to ask a prompt for next, given the verdicts of those there are."""
        if self.early_stop:
            return votes_needed(votes, self.votes)
        return max(self.votes, default=0) - len(votes)


@dataclass
class _Question:
    """One row in one order; its prompt is None where it is too long."""

    position: int
    row: Row
    order: str
    prompt: Prompt | None
    answers: list[tuple[Completion, str]] = field(default_factory=list[tuple[Completion, str]])
    """The greedy one, then the votes, each with its text."""

    @property
    def votes(self) -> list[int | None]:
        return [parse_verdict(text) for _, text in self.answers[1:]]


def judge_rows(
    given: EvaluationSet,
    positions: Sequence[int],
    model: str,
    weights: str,
    rules: AskingRules,
    renderer: Renderer,
    fleet: Answering,
) -> list[Prediction]:
    """The model's verdicts on the rows, each in both orders: greedy, then the votes.

    A prompt that is too long is no error (swapping the answers may add a token): its answers
    are empty and count as wrong, so that no model looks better by what it cannot read.

    Args:
        given: the set that the rows are from.
        positions: of the rows in it.
        model: base, sft or rl.
        weights: version of the weights that the fleet has been told to hold.
        rules: how to ask.
        renderer: of the model.
        fleet: answers.
    """
    questions = [q for i in positions for q in _questions(i, given.rows[i], renderer)]
    rivals, stop = verdict_ids(renderer), (renderer.end_token_id,)
    greedy = Sampling(rules.max_new_tokens, 0.0, stop_token_ids=stop, rival_ids=rivals)
    requests = [_request(n, q, greedy, given, rules) for n, q in enumerate(questions) if q.prompt]
    requests += _votes(questions, stop, rivals, given, rules)
    while requests:
        for result in fleet.generate(requests):
            questions[int(result.id.partition(":")[0])].answers += [
                (completion, renderer.decode(completion.token_ids))
                for completion in result.completions
            ]
        requests = _votes(questions, stop, rivals, given, rules)
    return [
        prediction
        for question in questions
        for prediction in _predictions(question, given, model, weights, rules, renderer)
    ]


def verdict_ids(renderer: Renderer) -> tuple[int, ...]:
    """The tokens "1" and "2"; none where the tokenizer has no token of their own for them."""
    digits = [renderer.response_ids(digit)[:-1] for digit in ("1", "2")]
    return tuple(ids[0] for ids in digits) if all(len(ids) == 1 for ids in digits) else ()


def in_order(row: Row, order: str) -> tuple[str, str]:
    """The two answers as they stand in this order."""
    return (row.answer1, row.answer2) if order == ORDERS[0] else (row.answer2, row.answer1)


def _questions(position: int, row: Row, renderer: Renderer) -> Iterator[_Question]:
    for order in ORDERS:
        try:
            prompt = renderer.prompt(row.question, *in_order(row, order), row.images)
        except PromptTooLong:
            prompt = None
        yield _Question(position, row, order, prompt)


def _votes(
    questions: Sequence[_Question],
    stop: tuple[int, ...],
    rivals: tuple[int, ...],
    given: EvaluationSet,
    rules: AskingRules,
) -> list[GenerateRequest]:
    """The next round."""
    return [
        _request(
            number,
            question,
            Sampling(rules.max_new_tokens, rules.temperature, more, stop, rivals),
            given,
            rules,
        )
        for number, question in enumerate(questions)
        if question.prompt and (more := rules.more_votes(question.votes))
    ]


def _request(
    number: int, question: _Question, sampling: Sampling, given: EvaluationSet, rules: AskingRules
) -> GenerateRequest:
    assert question.prompt is not None
    votes = max(0, len(question.answers) - 1)
    # A server seeds the answers to one request upwards: vote k has the same seed in any round.
    seed = vote_seed(rules.seed, given.name, question.position, question.order) + votes
    return GenerateRequest(
        id=f"{number}:{votes}",
        token_ids=question.prompt.collapsed_ids,
        sampling=sampling,
        images=question.prompt.images,
        expanded_ids=question.prompt.token_ids,
        seed=seed,
    )


def vote_seed(seed: int, set_name: str, position: int, order: str) -> int:
    """Another seed for every prompt, the same in every run; below 2**31 − 1000."""
    digest = hashlib.sha256(f"{seed}/{set_name}/{position}/{order}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % (2**31 - 1000)


def _predictions(
    question: _Question,
    given: EvaluationSet,
    model: str,
    weights: str,
    rules: AskingRules,
    renderer: Renderer,
) -> Iterator[Prediction]:
    unanswered: list[tuple[None, str]] = [(None, "")] * (rules.answers_per_row // len(ORDERS))
    for sample, (completion, response) in enumerate(question.answers or unanswered):
        verdict = parse_verdict(response)
        yield Prediction(
            model=model,
            set=given.name,
            row=question.position,
            row_id=question.row.id,
            item=item_of(question.row),
            cluster=given.clusters[question.position],
            category=category_of(question.row),
            source=question.row.source,
            order=question.order,
            sample=sample,
            temperature=0.0 if sample == GREEDY else rules.temperature,
            response=response,
            verdict=verdict,
            log_odds=(
                verdict_log_odds(completion.token_ids, completion.rivals, renderer.decode)
                if completion and verdict
                else None
            ),
            released=released_choice(response, given.benchmark),
            gold=gold_in_order(question.row.gold, question.order),
            tokens=len(completion.token_ids) if completion else 0,
            truncated=completion is not None and completion.finish_reason == "length",
            reflections=reflections(response),
            weights=weights,
        )
