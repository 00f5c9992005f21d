# SPDX-License-Identifier: Apache-2.0
"""The values that cross the boundary between a stage and its rollout servers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a prompt is sampled.

    There is no top-p, top-k or penalty: each of them makes the server's log-probs those of
    another distribution than the trainer's (top_p=0.9 shifts them by about 0.1), so the policy
    is sampled as it is. ``temperature=0`` is greedy. Where one of ``rival_ids`` is sampled, the
    log-probs of all of them are answered: how close the choice among them was.
    """

    max_tokens: int
    temperature: float = 1.0
    n: int = 1
    stop_token_ids: tuple[int, ...] = ()
    rival_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt.

    ``token_ids`` holds **one** image placeholder token per image (the server expands it; see
    :func:`collapse_image_tokens`), with untrusted text tokenised by the caller, so that nothing
    in it can be parsed as a special token. ``images`` are encoded PNG or JPEG files in the order
    of their placeholders. ``expanded_ids``, when given, is the same prompt as the trainer's own
    processor expands it; a server that expands it otherwise is an error, because the log-probs
    of the two sides would then belong to different prompts.
    """

    id: str
    token_ids: tuple[int, ...]
    sampling: Sampling
    images: tuple[bytes, ...] = ()
    expanded_ids: tuple[int, ...] | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer.

    ``logprobs[i]`` is the log-probability (natural, at the request's temperature, that of greedy
    answers being 1) of ``token_ids[i]``; both have the same length and include the end token.
    ``rivals`` has, by the place of each sampled token that is one of ``Sampling.rival_ids``, the
    log-probs of all of these, in their order.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    rivals: Mapping[int, tuple[float, ...]] = field(default_factory=dict[int, tuple[float, ...]])


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """The answers to one request: ``sampling.n`` completions, all of one weight version."""

    id: str
    prompt_token_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    weight_version: str
    server: str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as its safetensors header states it: ``dtype`` in that format's words (``F32``)."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One safetensors file in the object store; ``sha256`` is lower-case hex of its bytes."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class WeightVersion:
    """A whole set of weights that servers can be told to load.

    ``tensors`` (by checkpoint name) is what the publisher wrote, when it knows it; servers
    compare it with the files, and the files with the model they serve.
    """

    version: str
    files: tuple[WeightFile, ...]
    tensors: Mapping[str, TensorSpec] | None = None


@dataclass(frozen=True, slots=True)
class UpdateTiming:
    """Seconds that one server took: ``prepare`` while it served, ``paused`` while it did not."""

    prepare: float
    paused: float


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What the fleet knows of one server; ``reason`` says why it gets no traffic, if so."""

    address: str
    healthy: bool
    version: str | None
    in_flight: int
    reason: str


class RolloutError(Exception):
    """Something about rollout servers went wrong."""


class ServerUnavailable(RolloutError):
    """One server cannot be used just now; another one, or a later try, may do."""


class ServerLost(ServerUnavailable):
    """The server does not answer, or no longer: it says nothing about what it was asked."""


class NotReached(ServerLost):
    """There was no connection: the server was asked nothing."""


class IdentityRefused(NotReached):
    """The address does not prove that it is a server of this job; no token was sent to it."""


class StaleWeights(ServerUnavailable):
    """The server answered with other weights than the trainer's."""


class WrongWeights(ServerUnavailable):
    """The weights are of another model than the one that the server serves."""


class WeightsNotServed(ServerUnavailable):
    """The server could not fetch the weights: the store was away, or took no signature."""


class RequestRefused(RolloutError):
    """A server refused a request as malformed; no other server would take it."""


class PromptMismatch(RolloutError):
    """The server's prompt is not the trainer's (another processor, tokenizer or image size)."""


class WeightUpdateFailed(RolloutError):
    """No server took the weights; the message has every server's reason."""


class WeightsMisfit(WeightUpdateFailed):
    """Every server serves another model than the weights are of: no later try would help."""


class NoHealthyServer(RolloutError):
    """No server was usable for longer than allowed; the message has every server's reason."""
