# SPDX-License-Identifier: Apache-2.0
"""Asking one model for its verdicts: rows to prompts in both orders, answers to predictions."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation.predictions import GREEDY, ORDERS, Prediction, gold_in_order
from r1reward_trainer.evaluation.probability import verdict_log_odds
from r1reward_trainer.method.verdict import parse_verdict
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
        votes: answers sampled at `temperature` besides the greedy one; 0 for none.
        temperature: of the votes.
        max_new_tokens: longest answer.
        seed: of the votes.
    """

    votes: int
    temperature: float
    max_new_tokens: int
    seed: int

    @property
    def answers_per_row(self) -> int:
        """Predictions that come of a row."""
        return len(ORDERS) * (1 + self.votes)


@dataclass(frozen=True)
class _Question:
    """One row in one order; its prompt is None where it is too long."""

    position: int
    row: Row
    order: str
    prompt: Prompt | None


def judge_rows(
    rows: Iterable[tuple[int, Row]],
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
        rows: with their positions among the held-out rows.
        model: base, sft or rl.
        weights: version of the weights that the fleet has been told to hold.
        rules: how to ask.
        renderer: of the model.
        fleet: answers.
    """
    questions = [q for position, row in rows for q in _questions(position, row, renderer)]
    stop = (renderer.end_token_id,)
    rivals = verdict_ids(renderer)
    requests = [
        r for number, q in enumerate(questions) for r in _requests(number, q, rules, stop, rivals)
    ]
    answers: dict[int, list[Completion]] = {}
    for result in fleet.generate(requests):
        number = int(result.id.partition(":")[0])
        answers.setdefault(number, []).extend(result.completions)
    return [
        prediction
        for number, question in enumerate(questions)
        for prediction in _predictions(
            question, answers.get(number, []), model, weights, rules, renderer
        )
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


def _requests(
    number: int,
    question: _Question,
    rules: AskingRules,
    stop: tuple[int, ...],
    rivals: tuple[int, ...],
) -> Iterator[GenerateRequest]:
    prompt = question.prompt
    if prompt is None:
        return
    longest = rules.max_new_tokens
    kinds = [("greedy", Sampling(longest, 0.0, stop_token_ids=stop, rival_ids=rivals))]
    if rules.votes:
        votes = Sampling(longest, rules.temperature, rules.votes, stop, rivals)
        kinds.append(("votes", votes))
    for name, sampling in kinds:
        yield GenerateRequest(
            id=f"{number}:{name}",
            token_ids=prompt.collapsed_ids,
            sampling=sampling,
            images=prompt.images,
            expanded_ids=prompt.token_ids,
            seed=vote_seed(rules.seed, question.position, question.order),
        )


def vote_seed(seed: int, position: int, order: str) -> int:
    """Another seed for every prompt, the same in every run; below 2**31."""
    digest = hashlib.sha256(f"{seed}/{position}/{order}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _predictions(
    question: _Question,
    completions: Sequence[Completion],
    model: str,
    weights: str,
    rules: AskingRules,
    renderer: Renderer,
) -> Iterator[Prediction]:
    for sample in range(1 + rules.votes):
        completion = completions[sample] if completions else None
        response = renderer.decode(completion.token_ids) if completion else ""
        verdict = parse_verdict(response)
        yield Prediction(
            model=model,
            row=question.position,
            row_id=question.row.id,
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
            gold=gold_in_order(question.row.gold, question.order),
            tokens=len(completion.token_ids) if completion else 0,
            truncated=completion is not None and completion.finish_reason == "length",
            weights=weights,
        )
