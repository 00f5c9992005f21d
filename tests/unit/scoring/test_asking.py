# SPDX-License-Identifier: Apache-2.0
"""How long `r1 score` waits for whom, on a clock that skips every wait."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from r1reward_trainer.outcome import InfrastructureError
from r1reward_trainer.scoring.asking import TRIES, Busy, Failed, Full, Patience, ask
from r1reward_trainer.scoring.items import BadItem
from r1reward_trainer.scoring.judging import ranked
from r1reward_trainer.scoring.protocol import ModelInfo, ScoreRequest, ScoreResponse

T = TypeVar("T")
REQUEST = ScoreRequest(question="q", answers=["a", "b"])
SCORES = ranked(2, [], "sha256:0")
MODEL = ModelInfo(weights="sha256:0", max_images=1, max_answers=2, temperature=1.0)


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing, and says how long it would have."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.skipped += timeout or 0.0
        return super().select(0)


def skipping(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result, and the seconds until it was there."""
    selector = _Skipping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.skipped  # pyright: ignore[reportAttributeAccessIssue]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work), selector.skipped


def now() -> float:
    return asyncio.get_running_loop().time()


class Stub:
    """Answers as told; the last word is said for ever.

    Attributes:
        asked: when it was asked for scores.
        looked: when it was asked for its model.
    """

    def __init__(
        self,
        *scores: Exception | ScoreResponse,
        model: Callable[[], ModelInfo] = lambda: MODEL,
    ) -> None:
        self._scores: Iterator[Exception | ScoreResponse] = iter(scores)
        self._last = scores[-1]
        self._model = model
        self.asked: list[float] = []
        self.looked: list[float] = []

    async def model(self) -> ModelInfo:
        self.looked.append(now())
        return self._model()

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        self.asked.append(now())
        found = next(self._scores, self._last)
        if isinstance(found, Exception):
            raise found
        return found


def asked(stub: Stub, seconds: float = 600, full_seconds: float = 3600) -> float:
    """Seconds until it had scored."""
    found, after = skipping(ask(stub, REQUEST, Patience(seconds, full_seconds)))
    assert found == SCORES
    return after


def test_who_is_out_for_too_long_is_given_up():
    stub = Stub(Busy("gone"))
    with pytest.raises(InfrastructureError, match=r"no scores for 600 s, at last: gone"):
        asked(stub)
    # To the very end, and not only until the next pause would be too long.
    assert stub.asked[-1] == pytest.approx(600)


def test_who_comes_back_in_time_scores():
    assert asked(Stub(*[Busy("gone")] * 8, SCORES)) < 600


def test_who_is_full_is_not_out():
    assert asked(Stub(*[Full("full", 100.0)] * 20, SCORES)) > 2000


def test_who_is_full_for_ever_is_given_up_at_last():
    stub = Stub(Full("full", 5.0))
    with pytest.raises(InfrastructureError, match=r"no scores for 3600 s, at last: full"):
        asked(stub)
    assert stub.asked[-1] == pytest.approx(3600)


def test_who_is_out_after_having_been_full_has_the_whole_patience():
    assert asked(Stub(*[Full("", 100.0)] * 9, *[Busy("", 100.0)] * 4, SCORES)) > 1000


def test_nobody_comes_again_sooner_than_he_was_told():
    stub = Stub(Full("", 90.0), Full("", 0.0), Busy("", 200.0), SCORES)
    asked(stub)
    waits = [after - before for before, after in zip(stub.asked, stub.asked[1:], strict=False)]
    assert 90 <= waits[0] <= 135
    assert 0 < waits[1] < 5
    assert 200 <= waits[2] <= 300


def test_who_is_told_to_come_again_too_late_tries_once_more_at_the_end():
    stub = Stub(Full("", 1e9))
    with pytest.raises(InfrastructureError):
        asked(stub, full_seconds=700)
    assert stub.asked == [0, pytest.approx(700)]


def test_as_long_as_others_come_to_an_end_nobody_gives_up():
    async def run(end: ScoreResponse | BadItem) -> None:
        patience = Patience(600, 600)
        waiting = asyncio.create_task(ask(Stub(*[Busy("", 60.0)] * 40, SCORES), REQUEST, patience))
        while not waiting.done():
            await asyncio.sleep(500)
            try:
                await ask(Stub(end), REQUEST, patience)
            except BadItem:
                assert end is not SCORES
        assert await waiting == SCORES
        assert now() > 2400

    for end in (SCORES, BadItem("bad")):
        skipping(run(end))


def test_a_request_that_fails_beside_a_model_that_is_there_is_at_fault():
    stub = Stub(Failed("too late"))
    with pytest.raises(BadItem, match=rf"too late \({TRIES} tries\)"):
        asked(stub)
    assert len(stub.asked) == TRIES
    assert all(before < after for before, after in zip(stub.asked, stub.asked[1:], strict=False))


def test_a_request_that_fails_once_is_asked_again():
    stub = Stub(Failed("too late"), SCORES)
    asked(stub)
    assert len(stub.asked) == 2


def test_a_request_that_fails_as_the_model_goes_out_is_not_at_fault():
    def out() -> ModelInfo:
        raise Busy("gone")

    stub = Stub(Failed("too late"), model=out)
    with pytest.raises(InfrastructureError, match=r"at last: gone"):
        asked(stub)
    assert len(stub.asked) == 1
    back = Stub(Failed("too late"), SCORES, model=lambda: MODEL if now() > 300 else out())
    assert asked(back) > 300
    assert len(back.asked) == 2


def test_a_request_may_be_cancelled_while_it_waits():
    async def run() -> None:
        waiting = asyncio.create_task(ask(Stub(Full("", 60.0)), REQUEST, Patience(600, 3600)))
        await asyncio.sleep(100)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    skipping(run())
