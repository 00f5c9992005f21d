# SPDX-License-Identifier: Apache-2.0
"""Asks the teacher about rows until it is right or has had all its attempts.

One asyncio loop for any number of shards. Each of `concurrency` workers takes
the next row, asks, waits until the answer is in the journal, and asks again.
"""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from r1reward_api.resource.job import AnnotateSpec
from r1reward_trainer.annotation.choice import Shard
from r1reward_trainer.annotation.journal import Answer, Journal
from r1reward_trainer.data.rows import Row
from r1reward_trainer.method.verdict import format_ok, parse_verdict
from r1reward_trainer.outcome import Interrupted, StageError
from r1reward_trainer.render import prompt_text
from r1reward_trainer.teacher import Question, Refused, Reply, TeacherClient

MAX_RESPONSE_CHARACTERS = 100_000
_STOP_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Result:
    """What became of a row.

    Attributes:
        row: its position in the input.
        attempts: the attempt that was right, 0 for never.
        response: the right one, else empty.
        temperature: of that attempt, or of the last.
        asked: answers in all, refusals among them.
        refused: refusals among them.
        faults: tries that failed and were made again.
    """

    row: int
    attempts: int
    response: str
    temperature: float
    asked: int
    refused: int
    faults: int = 0


def is_right(text: str, gold: int) -> bool:
    """True for a response in the form that SFT shall teach, whose verdict is gold."""
    response = text.strip()
    return (
        len(response) <= MAX_RESPONSE_CHARACTERS
        and format_ok(response)
        and parse_verdict(response) == gold
    )


def result_of(row: int, gold: int, answers: Sequence[Answer], max_attempts: int) -> Result | None:
    """The row's result, or None while it must be asked again.

    Args:
        row: its position.
        gold: 1 or 2.
        answers: so far, by attempt.
        max_attempts: of the spec.
    """
    refused = sum(answer.refused for answer in answers)
    faults = sum(answer.faults for answer in answers)
    right = next((answer for answer in answers if is_right(answer.text, gold)), None)
    if right is not None:
        text = right.text.strip()
        return Result(row, right.attempt, text, right.temperature, len(answers), refused, faults)
    if len(answers) < max_attempts:
        return None
    return Result(row, 0, "", answers[-1].temperature, len(answers), refused, faults)


def attempt_seed(seed: int, row: Row, attempt: int) -> int:
    """Seed of the teacher's sampling: another for each row and attempt."""
    text = f"{seed}:{attempt}:{row.id}:{row.question}:{row.answer1}:{row.answer2}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) & 0x7FFFFFFF


def question_of(row: Row, attempt: int, spec: AnnotateSpec, template: str | None) -> Question:
    """What the teacher is asked about a row."""
    return Question(
        text=prompt_text(template, row.question, row.answer1, row.answer2),
        images=row.images,
        temperature=spec.temperature if attempt == 1 else spec.retry_temperature,
        seed=attempt_seed(spec.seed, row, attempt),
    )


@dataclass(frozen=True)
class Asking:
    """What does not change from row to row.

    Attributes:
        rows: the input.
        spec: of the job.
        template: data.promptTemplate.
        concurrency: rows in work at once.
        stop: set when the work shall end.
        on_result: called in the loop with each finished row.
    """

    rows: Sequence[Row]
    spec: AnnotateSpec
    template: str | None
    concurrency: int
    stop: threading.Event
    on_result: Callable[[Result], None]


async def annotate(
    asking: Asking, client: TeacherClient, journals: Mapping[Shard, Journal]
) -> dict[Shard, list[Result]]:
    """Annotates whole shards.

    Returns:
        The results of each shard in the order of its rows.

    Raises:
        Interrupted: `stop` was set; all answers that came are in the journals.
        StageError: teacher or storage failed; likewise.
    """
    loaded = await asyncio.gather(*(asyncio.to_thread(j.load) for j in journals.values()))
    known: dict[int, dict[int, Answer]] = {}
    for answer in (a for answers in loaded for a in answers):
        known.setdefault(answer.row, {})[answer.attempt] = answer
    results: dict[int, Result] = {}
    work = iter([(row, journal) for shard, journal in journals.items() for row in shard.rows])

    async def worker(work: Iterator[tuple[int, Journal]]) -> None:
        for position, journal in work:
            answers = _in_order(known.pop(position, {}))
            result = await _annotate_row(asking, client, journal, position, answers)
            results[position] = result
            asking.on_result(result)

    try:
        await _until_stopped(asking.stop, [worker(work) for _ in range(asking.concurrency)])
    finally:
        for journal in journals.values():
            await journal.drain()
    return {shard: [results[row] for row in shard.rows] for shard in journals}


async def _annotate_row(
    asking: Asking, client: TeacherClient, journal: Journal, position: int, answers: list[Answer]
) -> Result:
    row = asking.rows[position]
    while True:
        result = result_of(position, row.gold, answers, asking.spec.max_attempts)
        if result is not None:
            return result
        attempt = len(answers) + 1
        question = question_of(row, attempt, asking.spec, asking.template)
        try:
            reply, refused = await client.ask(question), False
        except Refused as refusal:
            reply, refused = Reply("", refusal.faults), True
        answer = Answer(position, attempt, reply.text, question.temperature, refused, reply.faults)
        await journal.append(answer)
        answers.append(answer)


def _in_order(known: dict[int, Answer]) -> list[Answer]:
    """Answers to attempts 1, 2, … without a gap."""
    answers: list[Answer] = []
    while (attempt := len(answers) + 1) in known:
        answers.append(known[attempt])
    return answers


async def _until_stopped(stop: threading.Event, workers: list) -> None:
    """Runs workers to their end, or cancels them when `stop` is set or one fails."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(worker) for worker in workers]
            while any(not task.done() for task in tasks):
                await asyncio.wait(tasks, timeout=_STOP_POLL_SECONDS)
                if stop.is_set():
                    raise Interrupted("stopped by SIGTERM; the answers so far are in the journal")
    except BaseExceptionGroup as failures:
        raise _first_cause(failures) from failures


def _first_cause(failures: BaseExceptionGroup) -> BaseException:
    """The error to report: a StageError before any other."""
    leaves = list(_leaves(failures))
    return next((e for e in leaves if isinstance(e, StageError)), leaves[0])


def _leaves(failures: BaseExceptionGroup) -> Iterator[BaseException]:
    for error in failures.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
