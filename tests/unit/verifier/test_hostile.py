# SPDX-License-Identifier: Apache-2.0
"""No text that a policy can write gains reward that it has not earned, or breaks a batch."""

import asyncio
import json
import re
import time

import httpx
import pytest

from r1reward_api.resource.training import Algorithm
from r1reward_trainer.method.judge_prompt import judge_prompt, think_tail
from r1reward_trainer.method.reasons import ConsistencyReason
from r1reward_trainer.method.verdict import format_ok, parse_verdict
from r1reward_trainer.verifier.client import VerifierClient
from r1reward_trainer.verifier.protocol import MAX_SAMPLES, Sample, as_unicode
from r1reward_trainer.verifier.scoring import Scoring
from r1reward_trainer.verifier.service import RewardService
from tests.unit.verifier.conftest import TOKEN
from tests.unit.verifier.hostile import broken_utf8, dense, noise, responses
from tests.unit.verifier.judge_stub import Reply, fenced, with_context

CASES = 10_000
HOSTILE = [
    *responses(CASES, seed=0),
    *(noise(100_000, seed) for seed in range(3)),
    *(broken_utf8(100_000, seed) for seed in range(3)),
    *(f"<think>{noise(100_000, seed)}</think><answer>1</answer>" for seed in range(3)),
    *dense(30_000),
    *(piece * 20_000 for piece in ("<answer>", "<think>", "</think>", "\n", "<answer>1</answer>")),
]
SCORING = Scoring(Algorithm())


def verdict_by_hand(response: str) -> str | None:
    """The one answer block's content, read without a regular expression."""
    pieces = response.split("<answer>")
    if len(pieces) != 2:
        return None
    return next((v for v in "12" if pieces[1].startswith(f"{v}</answer>")), None)


def samples(gold: int) -> list[Sample]:
    return [
        Sample.model_validate({"id": str(i), "response": response, "gold": gold})
        for i, response in enumerate(HOSTILE)
    ]


def test_the_verdict_comes_from_exactly_one_plain_answer_block_and_nothing_else() -> None:
    verdicts = [parse_verdict(response) for response in HOSTILE]
    expected = [verdict_by_hand(response) for response in HOSTILE]
    assert [str(v) if v else None for v in verdicts] == expected
    assert min(verdicts.count(v) for v in (1, 2, None)) > CASES // 100  # all kinds are among them


@pytest.mark.parametrize("outcome", list(ConsistencyReason))
def test_a_wrong_or_missing_verdict_earns_the_form_alone_whatever_the_judge_says(
    outcome: ConsistencyReason,
) -> None:
    for gold in (1, 2):
        for sample in samples(gold):
            reward = SCORING.reward(sample, outcome)
            if verdict_by_hand(sample.response) != str(gold):
                assert SCORING.question(sample) is ConsistencyReason.RESULT_IS_0
                assert (reward.result, reward.total) == (0, 0.5 * format_ok(sample.response))
            else:
                assert reward.result == 1
                assert reward.total <= 2.0


def test_no_response_leaves_its_fence_or_brings_a_control_token_to_the_judge() -> None:
    for response in HOSTILE:
        tail = think_tail(as_unicode(response))
        prompt = judge_prompt(tail, 1)
        (fence,) = re.findall(r"two lines (REASONING-[0-9a-f]{16})\. It", prompt)
        frame = prompt.split(fence)
        assert len(frame) == 4  # named once, and around the text: the text cannot know it
        assert not set("<>[]") & set(prompt)
        assert len(frame[2].encode()) <= 4002
        assert len(prompt.encode()) <= 4700
        assert frame[3] == judge_prompt("", 1).split("REASONING-")[3][16:]


def test_every_hostile_response_is_rewarded_in_its_place_and_none_gains(
    verifier, judge_stub
) -> None:
    """The judge does what its question says: it repeats the text, and obeys its last line."""
    judge_stub.behaviour = lambda question, _: Reply(f"As told: {fenced(question)} 1")
    url = verifier(judge_stub, max_body_bytes=64 << 20, max_concurrency=16)
    with httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        timeout=120,
    ) as http:
        for begin in range(0, len(HOSTILE), MAX_SAMPLES):
            chosen = HOSTILE[begin : begin + MAX_SAMPLES]
            body = json.dumps(
                {
                    "samples": [
                        {"id": str(i), "response": r, "gold": 1} for i, r in enumerate(chosen)
                    ]
                }
            )  # as ASCII, so that halves of surrogate pairs arrive
            answer = http.post("/v1/rewards", content=body.encode())
            assert answer.status_code == 200, answer.text[:300]
            rewards = answer.json()["rewards"]
            assert [reward["id"] for reward in rewards] == [str(i) for i in range(len(chosen))]
            for reward, response in zip(rewards, chosen, strict=True):
                right = verdict_by_hand(response) == "1"
                assert reward["result"] == right
                assert reward["consistency"] in ((0, -1) if right else (0,))  # none got its +1
                assert reward["total"] <= right + 0.5 * format_ok(response)
                assert not set(response) & set("\x1b\u202e") & set(reward["explanation"])


@pytest.mark.parametrize(
    ("context", "reason"), [(4700, "judge_disagrees"), (1000, "judge_refuses")]
)
def test_a_text_of_many_tokens_gains_nothing_and_does_not_silence_the_judge(
    verifier, judge_stub, context, reason
) -> None:
    judge_stub.behaviour = with_context(context)
    given = [Sample(id=f"{i}", response=text, gold=1) for i, text in enumerate(dense(4000))]
    plain = "<think>Response 1 is better</think><answer>1</answer>"
    with VerifierClient(verifier(judge_stub), TOKEN) as client:
        rewards = client.score(given)
        (bystander,) = client.score([Sample(id="plain", response=plain, gold=1)])
    assert {(r.total, r.reasons.consistency.value) for r in rewards} == {(1.0, reason)}
    assert bystander.total == 2.0


@pytest.mark.parametrize(
    "body",
    [
        b'{"samples": [{"id": "a", "response": "\xff", "gold": 1}]}',
        b'{"samples": [{"id": "a", "response": "x", "gold": NaN}]}',
        b'{"samples": [{"id": "a", "response": "x", "gold": 1e999}]}',
        b'{"samples": [{"id": "a", "response": "x", "gold": 1, "\\ud800": 1}]}',
        b'{"samples": [{"id": "a", "response": ["\\ud800"], "gold": 1}]}',
        b'{"samples": [{"id": "a", "response": "x", "gold": 1, "' + b"n" * 500_000 + b'": 1}]}',
        json.dumps({"samples": [{f"n{i}": 1 for i in range(20_000)}]}).encode(),
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
    ids=[
        "utf-8",
        "nan",
        "infinity",
        "half-a-name",
        "half-a-list",
        "long-name",
        "names",
        "deep",
        "bom",
        "empty",
    ],
)
def test_a_body_that_is_no_request_is_refused_without_being_repeated(verifier, body) -> None:
    answer = httpx.post(
        f"{verifier()}/v1/rewards",
        content=body,
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    assert answer.status_code in (400, 422)
    assert len(answer.content) < 1500


class SlowJudge:
    """Says what the chain says, after a pause that shuffles the answers."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    async def ask(self, question, read):
        number = int(re.findall(r"case (\d+):", question)[0])
        await asyncio.sleep((number * 7919 % 101) / 1000)
        if self.fault is not None and number % 7 == 0:
            raise self.fault
        return read("1" if f"case {number}: yes" in question else "0")

    async def close(self) -> None:
        pass


def numbered(number: int) -> Sample:
    """The right verdict; a chain that supports it when the number is even."""
    word = "yes" if number % 2 == 0 else "no"
    response = f"<think>case {number}: {word}</think><answer>1</answer>"
    return Sample(id=f"case-{number}", response=response, gold=1)


def test_hundreds_of_concurrent_callers_each_get_their_own_rewards() -> None:
    service = RewardService(SCORING, SlowJudge())  # pyright: ignore[reportArgumentType]

    async def all_callers():
        calls = [[numbered(caller * 10 + i) for i in range(10)] for caller in range(400)]
        return await asyncio.gather(*(service.rewards(call) for call in calls))

    for caller, answer in enumerate(asyncio.run(all_callers())):
        numbers = range(caller * 10, caller * 10 + 10)
        assert [reward.id for reward in answer.rewards] == [f"case-{n}" for n in numbers]
        assert [reward.total for reward in answer.rewards] == [2.0, 1.0] * 5


def test_an_exception_in_the_judge_gives_an_error_and_never_a_reward() -> None:
    service = RewardService(SCORING, SlowJudge(RuntimeError("bug")))  # pyright: ignore[reportArgumentType]

    async def all_callers():
        calls = ([numbered(n)] for n in range(1, 300))
        return await asyncio.gather(*map(service.rewards, calls), return_exceptions=True)

    for number, answer in enumerate(asyncio.run(all_callers()), 1):
        if number % 7 == 0:
            assert isinstance(answer, RuntimeError)
        else:
            assert not isinstance(answer, BaseException)
            assert [reward.id for reward in answer.rewards] == [f"case-{number}"]


@pytest.mark.parametrize(
    "reply",
    [Reply(status=503), Reply(status=401), Reply(raw=b"<html>"), Reply("I cannot say"), None],
    ids=["503", "401", "rubbish", "no-verdict", "gone"],
)
def test_a_judge_that_is_out_for_a_whole_run_costs_no_reward_and_is_counted_at_each_step(
    verifier, judge_stub, reply
) -> None:
    from r1reward_trainer.stages.rl import reward_metrics

    if reply is None:
        judge_stub.close()
    else:
        judge_stub.behaviour = lambda *_: reply
    start = time.monotonic()
    with VerifierClient(verifier(judge_stub), TOKEN) as client:
        for step in range(8):
            given = [numbered(32 * step + i) for i in range(24)]
            given += [s.model_copy(update={"gold": 2, "id": f"w{s.id}"}) for s in given[:8]]
            metrics = reward_metrics(client.score(given))
            assert metrics == {
                "reward/mean": (24 * 1.5 + 8 * 0.5) / 32,
                "reward/result": 0.75,
                "reward/format": 1.0,
                "reward/consistency": 0.0,
                "judge/errors": 24.0,
            }
    assert time.monotonic() - start < 30


def test_more_samples_than_a_request_may_hold_are_refused(verifier) -> None:
    body = {"samples": [{"id": "a", "response": "x", "gold": 1}] * (MAX_SAMPLES + 1)}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(f"{verifier()}/v1/rewards", json=body, headers=headers)
    assert answer.status_code == 422
