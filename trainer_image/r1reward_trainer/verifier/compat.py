# SPDX-License-Identifier: Apache-2.0
"""The same rewards for other training frameworks.

OpenRLHF has a wire protocol for remote rewards (`--reward.remote_url
http://r1:TOKEN@HOST:8080/get_reward`; the token goes into the URL, for its
client sends no header). verl and TRL call a Python function; its documented
arguments are the body here, so that the function is one POST.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from r1reward_trainer.verifier.protocol import MAX_SAMPLES, Reward, Sample, no_boolean
from r1reward_trainer.verifier.service import RewardService

ASSISTANT = "<|im_start|>assistant\n"
"""Where the response begins in a ChatML text."""
_ENDS = ("<|im_end|>", "<|endoftext|>", "\n")

Texts = Annotated[list[str], Field(max_length=MAX_SAMPLES)]
Gold = Annotated[
    str | int | list[str],
    BeforeValidator(no_boolean),
    WithJsonSchema(
        {
            "description": "The better answer: 1, 2 or `<answer>k</answer>`, or a list of one",
            "anyOf": [
                {"enum": [1, 2, "1", "2", "<answer>1</answer>", "<answer>2</answer>"]},
                {
                    "type": "array",
                    "items": {"enum": ["1", "2", "<answer>1</answer>", "<answer>2</answer>"]},
                    "minItems": 1,
                    "maxItems": 1,
                },
            ],
        }
    ),
]
_RIGHT = "<think>so Response 1 is better</think><answer>1</answer>"
_PROMPT = "<|im_start|>user\nWhich is better?<|im_end|>\n<|im_start|>assistant\n"


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")  # frameworks add fields between releases


def _with_example(**body: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [body]})


class OpenRlhfRequest(_Body):
    """OpenRLHF's remote reward request.

    Attributes:
        query: prompt and response, decoded with special tokens.
        prompts: the prompts alone.
        labels: the gold verdict of each: 1, 2 or `<answer>k</answer>`.
    """

    model_config = _with_example(
        query=[f"{_PROMPT}{_RIGHT}<|im_end|>"], prompts=[_PROMPT], labels=["<answer>1</answer>"]
    )

    query: Texts
    prompts: Texts
    labels: Annotated[list[Gold], Field(max_length=MAX_SAMPLES)] | None = None


class VerlRequest(_Body):
    """The arguments of verl's `compute_score`."""

    model_config = _with_example(
        data_source="preferences", solution_str=_RIGHT, ground_truth="1", extra_info={"index": 0}
    )

    solution_str: str
    ground_truth: Gold
    data_source: str = ""
    extra_info: dict[str, Any] | None = None


class Message(_Body):
    """One message of a conversational completion."""

    role: str = "assistant"
    content: str


class TrlRequest(_Body):
    """The arguments of a TRL reward function; `gold` is a column of the data set."""

    model_config = _with_example(
        completions=[_RIGHT, [{"role": "assistant", "content": _RIGHT}]], gold=[1, "2"]
    )

    completions: Annotated[list[str | list[Message]], Field(max_length=MAX_SAMPLES)]
    gold: Annotated[list[Gold], Field(max_length=MAX_SAMPLES)]


class ExtraLogs(BaseModel):
    """The terms of each reward, which OpenRLHF logs."""

    result: list[float]
    format: list[float]
    consistency: list[float]


class OpenRlhfResponse(BaseModel):
    """What OpenRLHF's client reads: a reward and a score of each query."""

    rewards: list[float]
    scores: list[float]
    extra_logs: ExtraLogs


class VerlResponse(BaseModel):
    """What a `compute_score` may return: `score` is the reward, the rest is logged."""

    score: float
    acc: int
    format: int
    consistency: int


class TrlResponse(BaseModel):
    """What a TRL reward function returns."""

    rewards: list[float]


def compat_router(service: RewardService) -> APIRouter:
    """`/get_reward` (OpenRLHF), `/compat/verl` and `/compat/trl`."""
    router = APIRouter(tags=["other frameworks"])

    @router.post("/get_reward")
    async def openrlhf(body: OpenRlhfRequest) -> OpenRlhfResponse:
        """OpenRLHF's remote reward; give it the URL with the token in it."""
        if body.labels is None:
            raise _bad("labels are needed: the gold verdict, 1 or 2, of each query")
        _same_length(query=body.query, prompts=body.prompts, labels=body.labels)
        responses = [response_of(q, p) for q, p in zip(body.query, body.prompts, strict=True)]
        rewards = await _rewards(service, responses, body.labels)
        totals = [reward.total for reward in rewards]
        terms = ExtraLogs(
            result=[reward.result for reward in rewards],
            format=[reward.format for reward in rewards],
            consistency=[reward.consistency for reward in rewards],
        )
        return OpenRlhfResponse(rewards=totals, scores=totals, extra_logs=terms)

    @router.post("/compat/verl")
    async def verl(body: VerlRequest) -> VerlResponse:
        """The body of a `compute_score` for verl."""
        (reward,) = await _rewards(service, [body.solution_str], [body.ground_truth])
        return VerlResponse(
            score=reward.total,
            acc=reward.result,
            format=reward.format,
            consistency=reward.consistency,
        )

    @router.post("/compat/trl")
    async def trl(body: TrlRequest) -> TrlResponse:
        """The body of a reward function for TRL."""
        _same_length(completions=body.completions, gold=body.gold)
        responses = [_text(completion) for completion in body.completions]
        rewards = await _rewards(service, responses, body.gold)
        return TrlResponse(rewards=[reward.total for reward in rewards])

    return router


def response_of(query: str, prompt: str) -> str:
    """The response in a ChatML text of prompt and response.

    The text decoded from expanded image tokens does not begin with the prompt, and both the
    question and the response may hold forged turns. The prompt has the boundary n times, so the
    n-th in the query is where the response begins.

    Raises:
        HTTPException: 422, when the boundary cannot be found.
    """
    if query.startswith(prompt) and prompt:
        response = query[len(prompt) :]
    else:
        boundaries = prompt.count(ASSISTANT)
        parts = query.split(ASSISTANT, boundaries)
        if boundaries == 0 or len(parts) <= boundaries:
            raise _bad(
                "a query neither begins with its prompt nor has the prompt's "
                f"{ASSISTANT!r}: send both as decoded with special tokens"
            )
        response = parts[-1]
    stop = len(response)  # an index: cutting the text itself would copy it for each end
    while end := next((e for e in _ENDS if response.endswith(e, 0, stop)), ""):
        stop -= len(end)
        while stop and response[stop - 1] == "\n":  # a body may be nothing else
            stop -= 1
    return response[:stop]


def gold_of(label: Gold) -> Literal[1, 2]:
    """1 or 2, from 1, "1", `<answer>1</answer>` or a list of one of them.

    Raises:
        HTTPException: 422, for anything else.
    """
    text = str(label[0] if isinstance(label, list) and len(label) == 1 else label).strip()
    match text:
        case "1" | "<answer>1</answer>":
            return 1
        case "2" | "<answer>2</answer>":
            return 2
        case _:
            raise _bad(f"gold verdict {text[:40]!r}: must be 1, 2 or <answer>1</answer>")


def _text(completion: str | list[Message]) -> str:
    if isinstance(completion, str):
        return completion
    return completion[-1].content if completion else ""


async def _rewards(
    service: RewardService, responses: list[str], labels: list[Gold]
) -> list[Reward]:
    pairs = zip(responses, labels, strict=True)
    samples = [
        Sample(id=str(i), response=response, gold=gold_of(label))
        for i, (response, label) in enumerate(pairs)
    ]
    return (await service.rewards(samples)).rewards


def _same_length(**lists: list[Any]) -> None:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise _bad(f"lists of different lengths: {lengths}")


def _bad(message: str) -> HTTPException:
    return HTTPException(status_code=422, detail=message)
