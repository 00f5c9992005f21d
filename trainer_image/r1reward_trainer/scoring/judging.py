# SPDX-License-Identifier: Apache-2.0
"""Asking the model about every two answers in both orders, and reading what it says."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from statistics import fmean

import numpy as np

from r1reward_trainer.evaluation.judging import verdict_ids
from r1reward_trainer.evaluation.probability import probability, row_log_odds, verdict_log_odds
from r1reward_trainer.images import InvalidImage
from r1reward_trainer.method.verdict import (
    ANSWER_OPEN,
    THINK_CLOSE,
    THINK_OPEN,
    format_ok,
    parse_verdict,
)
from r1reward_trainer.render import Pictures, PromptTooLong, Renderer
from r1reward_trainer.rollout import (
    GenerateRequest,
    GenerateResult,
    PromptMismatch,
    RequestRefused,
    Sampling,
)
from r1reward_trainer.scoring.places import Room, Stock
from r1reward_trainer.scoring.protocol import (
    MAX_ANSWERS,
    AnswerScore,
    Comparison,
    ModelInfo,
    OrderVerdict,
    ScoreRequest,
    ScoreResponse,
)
from r1reward_trainer.scoring.ranking import Preference, rank, round_robin
from r1reward_trainer.scoring.together import all_or_first_error

Ask = Callable[[GenerateRequest], Awaitable[GenerateResult]]


IMAGE_BYTES = 256 << 20
"""Of images on their way to the model, at once: every prompt has a copy of its own, and so many
answers make n · (n − 1) prompts."""
HELD_BYTES = 512 << 20
"""Of images of all requests under way, as they go to the model: a WebP file of 2 MB can make a PNG
file of 100 MB, and is held as long as its request."""
_RETRY_SECONDS = 5


class Unanswerable(ValueError):
    """The request is well formed, but this model cannot be asked; the message says why.

    Attributes:
        field: where in the request; empty where it is more than one field.
    """

    def __init__(self, message: str, *field: str | int) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Rules:
    """How the model is asked.

    Attributes:
        max_new_tokens: longest response.
        max_model_length: longest prompt and response together.
        max_images: most images in a request.
        temperature: of the calibration (`calibration.temperature` of the job's report.json); 1
            leaves the model's own probabilities.
    """

    max_new_tokens: int
    max_model_length: int
    max_images: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"the calibration's temperature must be above 0, not {self.temperature}"
            )


@dataclass(frozen=True)
class _Judged:
    """One response: which of the two shown is better, and ln P(first shown) − ln P(second)."""

    verdict: int | None
    log_odds: float | None
    response: str
    tokens: int
    truncated: bool


class Judge:
    """Scores requests with one model. For one event loop.

    Args:
        renderer: of the model's processor.
        ask: has a prompt answered.
        weights: digest of what answers.
        rules: how to ask.
        image_bytes: most of images that are on their way to the model at once.
        held_bytes: most of images that requests hold.
    """

    def __init__(
        self,
        renderer: Renderer,
        ask: Ask,
        weights: str,
        rules: Rules,
        image_bytes: int = IMAGE_BYTES,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self._renderer = renderer
        self._ask = ask
        self._weights = weights
        self._rules = rules
        self._rivals = verdict_ids(renderer)
        self._numbers = count()
        self._probe: GenerateRequest | None = None
        self._room = Room(image_bytes)
        self._held = Stock(held_bytes, _RETRY_SECONDS)
        # Rendering is computing: beside the loop, and not more than one at a time.
        self._beside = ThreadPoolExecutor(1, "render")

    @property
    def info(self) -> ModelInfo:
        """What can be asked."""
        return ModelInfo(
            weights=self._weights,
            max_images=self._rules.max_images,
            max_answers=MAX_ANSWERS,
            temperature=self._rules.temperature,
        )

    async def score(
        self, request: ScoreRequest, at_once: asyncio.Semaphore | None = None
    ) -> ScoreResponse:
        """Compares all pairs of a request's answers.

        Args:
            request: what is asked.
            at_once: lets its prompts go to the model; None for all at once.

        Raises:
            Unanswerable: a prompt is too long or refused by the model's server, or there are too
                many or unusable images.
            NoPlace: other requests hold too many images.
            RolloutError: the model does not answer.
        """
        if len(request.images) > self._rules.max_images:
            raise Unanswerable(
                f"images has {len(request.images)} entries; this model is served with at most "
                f"{self._rules.max_images}",
                "images",
            )
        pairs = round_robin(len(request.answers))
        loop = asyncio.get_running_loop()
        prompts = await loop.run_in_executor(self._beside, self.prompts, request, pairs)
        places = at_once or asyncio.Semaphore(len(prompts))
        with self._held.take(_image_bytes(prompts[0])):
            judged = await all_or_first_error(
                [self._judged(pairs[n // 2], prompt, places) for n, prompt in enumerate(prompts)]
            )
        comparisons = [
            _comparison(first, second, given, swapped, self._rules.temperature)
            for (first, second), given, swapped in zip(
                pairs, judged[::2], judged[1::2], strict=True
            )
        ]
        return ranked(len(request.answers), comparisons, self._weights)

    def close(self) -> None:
        """Ends the thread."""
        self._beside.shutdown(wait=False, cancel_futures=True)

    async def probe(self) -> None:
        """Has the model write one token.

        Raises:
            RolloutError: the model does not answer.
        """
        if self._probe is None:
            # Once: later it would wait behind what clients have rendered, such as large images.
            loop = asyncio.get_running_loop()
            request = ScoreRequest(question="Ready?", answers=["yes", "no"])
            prompts = await loop.run_in_executor(self._beside, self.prompts, request, [(0, 1)], 1)
            self._probe = prompts[0]
        await self._ask(replace(self._probe, id=self._name()))

    def prompts(
        self, request: ScoreRequest, pairs: Sequence[tuple[int, int]], longest: int | None = None
    ) -> list[GenerateRequest]:
        """Two a pair, one for each order."""
        pictures = self._pictures(request.files)
        prompts: list[GenerateRequest] = []
        for pair in pairs:
            for one, two in (pair, pair[::-1]):
                try:
                    prompt = self._renderer.served_prompt(
                        request.question, request.answers[one], request.answers[two], pictures
                    )
                except PromptTooLong as error:
                    raise Unanswerable(
                        f"{_named(pair)}: {error}; shorten them or the "
                        "question, or send smaller images"
                    ) from error
                room = self._rules.max_model_length - len(prompt.token_ids)
                if room < 1:
                    raise Unanswerable(
                        f"{_named(pair)}: the prompt has "
                        f"{len(prompt.token_ids)} tokens; the model is served with a length of "
                        f"{self._rules.max_model_length}: shorten them or the question"
                    )
                sampling = Sampling(
                    max_tokens=min(longest or self._rules.max_new_tokens, room),
                    temperature=0.0,
                    stop_token_ids=(self._renderer.end_token_id,),
                    rival_ids=self._rivals,
                )
                prompts.append(
                    GenerateRequest(
                        id=self._name(),
                        token_ids=prompt.collapsed_ids,
                        sampling=sampling,
                        images=pictures.files,
                        expanded_ids=prompt.token_ids,
                    )
                )
        return prompts

    def _name(self) -> str:
        return f"score-{next(self._numbers)}"

    def _pictures(self, files: Sequence[bytes]) -> Pictures:
        found: list[Pictures] = []
        size = 0
        for number, file in enumerate(files):
            try:
                found.append(self._renderer.pictures([file]))
            except InvalidImage as error:
                raise Unanswerable(str(error), "images", number) from error
            size += len(found[-1].files[0])
            if size > self._held.total:
                raise Unanswerable(
                    f"the images have more than {self._held.total} bytes as the model gets them: "
                    "send fewer or smaller ones, in RGB as PNG or JPEG",
                    "images",
                )
            self._held.require(size)  # before more of them are decoded
        return Pictures(
            tuple(file for one in found for file in one.files),
            tuple(size for one in found for size in one.sizes),
        )

    async def _judged(
        self, pair: tuple[int, int], prompt: GenerateRequest, places: asyncio.Semaphore
    ) -> _Judged:
        try:
            async with places, self._room.take(_image_bytes(prompt)):
                (completion,) = (await self._ask(prompt)).completions
        except (RequestRefused, PromptMismatch) as error:
            # The request's fault and not the server's: that one answers others, and the probe.
            tokens = len(prompt.expanded_ids or prompt.token_ids)
            raise Unanswerable(
                f"{_named(pair)}: the model's server does not take their prompt of {tokens} tokens "
                f"and {len(prompt.images)} images; change the question or these answers, or "
                f"encode the images anew: {error}"
            ) from error
        response = self._renderer.decode(completion.token_ids)
        verdict = parse_verdict(response)
        log_odds = None
        if verdict is not None:
            log_odds = verdict_log_odds(
                completion.token_ids, completion.rivals, self._renderer.decode
            )
        return _Judged(
            verdict=verdict,
            log_odds=log_odds,
            response=response,
            tokens=len(completion.token_ids),
            truncated=completion.finish_reason == "length",
        )


def _named(pair: tuple[int, int]) -> str:
    return f"answers {pair[0] + 1} and {pair[1] + 1}"


def _image_bytes(prompt: GenerateRequest) -> int:
    """Of its images, which all prompts of a request share."""
    return sum(map(len, prompt.images))


def ranked(answers: int, comparisons: Sequence[Comparison], weights: str) -> ScoreResponse:
    """The response with the ranking that the comparisons make.

    Args:
        answers: how many.
        comparisons: of answers numbered from 1.
        weights: digest of what judged.
    """
    known = [(c, preference) for c in comparisons if (preference := _preference(c)) is not None]
    found = rank(answers, [Preference(c.first - 1, c.second - 1, p) for c, p in known])
    best = [i + 1 for i, place in enumerate(found.ranks) if place == 1]
    return ScoreResponse(
        verdict=best[0] if len(best) == 1 else None,
        scores=[
            AnswerScore(answer=i + 1, rank=place, reward=2 * rate - 1, strength=strength)
            for i, (place, rate, strength) in enumerate(
                zip(found.ranks, found.win_rates, found.strengths, strict=True)
            )
        ],
        comparisons=list(comparisons),
        cycles=[[i + 1 for i in cycle] for cycle in found.cycles],
        cyclic_triads=found.cyclic_triads,
        consistence=found.consistence,
        weights=weights,
    )


def _preference(comparison: Comparison) -> float | None:
    """The probability; where the model has none to give, the verdicts as they are."""
    if comparison.probability is not None:
        return comparison.probability
    verdicts = [order.verdict for order in comparison.orders if order.verdict is not None]
    return fmean(v == comparison.first for v in verdicts) if verdicts else None


def _comparison(
    first: int, second: int, given: _Judged, swapped: _Judged, temperature: float
) -> Comparison:
    """Of answers numbered from 0."""
    overall = None
    if given.log_odds is not None or swapped.log_odds is not None:
        odds = row_log_odds(np.array([_or_nan(given.log_odds), _or_nan(swapped.log_odds)]))
        overall = _probability(float(odds), temperature)
    one, two = first + 1, second + 1
    orders = (
        _order((one, two), given, given.log_odds, temperature),
        _order((two, one), swapped, _negated(swapped.log_odds), temperature),
    )
    verdicts = [order.verdict for order in orders]
    agree = verdicts[0] is not None and verdicts[0] == verdicts[1]
    comparison = Comparison(
        first=one,
        second=two,
        verdict=None,
        probability=overall,
        orders_agree=agree,
        orders=orders,
    )
    preference = _preference(comparison)
    better = None
    if preference is not None and preference != 0.5:
        better = one if preference > 0.5 else two
    return comparison.model_copy(update={"verdict": better})


def _order(
    shown: tuple[int, int], judged: _Judged, log_odds: float | None, temperature: float
) -> OrderVerdict:
    """Args:
    shown: the answers, in this order.
    judged: the response.
    log_odds: of the pair's first answer.
    temperature: of the calibration.
    """
    return OrderVerdict(
        shown=shown,
        verdict=None if judged.verdict is None else shown[judged.verdict - 1],
        probability=None if log_odds is None else _probability(log_odds, temperature),
        reasoning=reasoning(judged.response),
        tokens=judged.tokens,
        truncated=judged.truncated,
    )


def reasoning(response: str) -> str:
    """The chain of thought of a response; all of it where it has not the form."""
    if not format_ok(response):
        return response.strip()
    chain = response.partition(THINK_CLOSE + ANSWER_OPEN)[0]
    return chain.partition(THINK_OPEN)[2].strip()


def _probability(log_odds: float, temperature: float) -> float:
    return float(probability(log_odds, temperature))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _negated(value: float | None) -> float | None:
    return None if value is None else -value
