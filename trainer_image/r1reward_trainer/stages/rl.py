# SPDX-License-Identifier: Apache-2.0
"""`r1 rl`: StableReinforce (paper, section 3).

Each step: sample answers to a batch of prompts, recompute their log-probs, reward
and normalise, update the policy, hand the new weights to the rollout servers.
Inputs: model, rows. Outputs: weights, metrics.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch

from r1reward_api.reasons import Reason
from r1reward_api.resource.training import RlSpec
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer import optim
from r1reward_trainer.context import StageContext
from r1reward_trainer.data.rows import Row, open_rows
from r1reward_trainer.distributed import Peers, peers
from r1reward_trainer.environment import Environment
from r1reward_trainer.method import sampler
from r1reward_trainer.method.advantages import group_baseline
from r1reward_trainer.method.losses import loss_metrics
from r1reward_trainer.method.reward import JudgeOutcome
from r1reward_trainer.model import Policy, checkpoint_tensors, load_policy
from r1reward_trainer.outcome import ConfigurationError, Outcome
from r1reward_trainer.policy_step import (
    advantages_of,
    backward,
    layout,
    logprob_difference,
    logprobs_of,
    make_share,
)
from r1reward_trainer.render import Prompt, Renderer
from r1reward_trainer.sampling import Answer
from r1reward_trainer.services import Services
from r1reward_trainer.training import (
    Journal,
    Prefetcher,
    Run,
    already_done,
    check_finite,
    fetch_inputs,
    render_row,
)
from r1reward_trainer.verifier.protocol import Reward

ANSWERS_KEPT_PER_STEP = 4
"""Written to samples.jsonl for people to read."""

_JUDGE_ERRORS = (JudgeOutcome.UNKNOWN, JudgeOutcome.UNAVAILABLE, JudgeOutcome.REFUSED)


def run(config: RunConfig, context: StageContext) -> Outcome:
    """Trains on the rows and publishes the weights."""
    local_rank = Environment.from_env().local_rank
    with peers(
        context.rank, context.world_size, local_rank, context.abandon, context.stop
    ) as group:
        return already_done(config, context, group) or _train(config, context, group)


def _train(config: RunConfig, context: StageContext, group: Peers) -> Outcome:
    spec = _checked(config)
    method, temperature = spec.algorithm, spec.sampling.temperature
    services = Services(config, context)

    context.progress.update(message="fetching model and rows")
    inputs = fetch_inputs(config, context, group, "rows")
    rows = open_rows(inputs.rows)
    renderer = Renderer.from_folder(inputs.model, config.spec.data)
    per_step = spec.sampling.prompts_per_step
    total = sampler.total_steps(len(rows), per_step, spec.epochs, spec.max_steps)
    plan = layout(spec, group.rank, group.world_size)
    updates = len(plan.mini_batches)

    context.progress.update(message="loading the model")
    policy = load_policy(inputs.model, config.serving, group.mesh)
    reference = None
    if method.kl_coefficient > 0:
        reference = load_policy(inputs.model, config.serving, group.mesh).requires_grad_(False)
    optimizer = optim.adamw(policy, spec.optimizer)
    metrics_journal, samples_journal = (
        Journal(context.scratch / "journal", name, writes=group.rank == 0)
        for name in ("metrics.jsonl", "samples.jsonl")
    )
    journals = [metrics_journal, samples_journal]
    training = Run(
        config, context, group, policy, optimizer, spec.checkpoint, inputs.fingerprints, journals
    )
    start = training.resume()
    context.progress.update(step=start, total=total, message="waiting for the rollout servers")

    def step_input(step: int) -> tuple[list[Row], dict[int, Prompt]]:
        """Rows by place, and the prompts that this process needs: rank 0 samples them all."""
        chosen = [rows[i] for i in sampler.step_rows(spec.seed, step, len(rows), per_step)]
        places = range(per_step) if group.rank == 0 else plan.places
        return chosen, {place: render_row(renderer, chosen[place]) for place in places}

    with ExitStack() as stack:
        if group.rank == 0:
            stack.enter_context(services)
        prefetcher = Prefetcher(step_input, start, total)
        stack.callback(prefetcher.close)
        group.leader(services.delete_earlier_weights)

        for step in range(start, total):
            clock = Clock()
            group.at(f"step {step + 1}, handing over weights")
            handed_over = group.gather(_hand_over, services, step, policy, group)
            if not all(handed_over):
                training.interrupt(step)
            clock.lap("seconds/weights")
            if step == start:
                context.progress.update(message="training")

            group.at(f"step {step + 1}, sampling")
            step_rows, prompts = group.together(prefetcher.get, step)
            answers = group.leader(services.sample, step, step_rows, prompts, renderer)
            if answers is None:
                training.interrupt(step)
            clock.lap("seconds/rollout")

            group.at(f"step {step + 1}, log-probs")
            if group.rank == 0:
                services.begin_scoring(answers, step_rows, renderer)
            share = make_share(plan, answers, prompts, spec.micro_batch_size, renderer, policy)
            old = logprobs_of(policy, share, temperature, group.device)
            kl = None
            if reference is not None:
                kl = old - logprobs_of(reference, share, temperature, group.device)
            clock.lap("seconds/logprobs")
            group.at(f"step {step + 1}, waiting for rewards")
            rewards = group.leader(services.rewards)
            if rewards is None:
                training.interrupt(step)
            training.raise_if_stopped(step)  # from here on the step must be finished
            clock.lap("seconds/rewards")

            group.at(f"step {step + 1}, training")
            scalars = torch.tensor([reward.total for reward in rewards], dtype=torch.float64)
            if method.baseline == "Group":
                scalars = group_baseline(scalars, torch.tensor([a.place for a in answers]))
            advantage, filtered = advantages_of(scalars[plan.own], share, kl, method, group)

            sums = torch.zeros(5, dtype=torch.float64)  # the losses, then their statistics
            norm = rate = 0.0
            for number, parts in enumerate(share.mini_batches):
                own = backward(policy, parts, old, advantage, spec, group)
                rate = optim.learning_rate(
                    step * updates + number, total * updates, spec.learning_rate, spec.optimizer
                )
                norm = optim.update(optimizer, policy, rate, spec.optimizer.max_grad_norm)
                summed = group.sum(own)
                sums += summed
                about = f"update {number + 1} of {updates}; see samples.jsonl for answers"
                check_finite(step + 1, float(summed[0]), norm, rate, about)
            clock.lap("seconds/train")

            counts = group.sum(torch.cat([filtered, logprob_difference(old, share)]))
            metrics = {
                "loss": float(sums[0]) / updates,
                "grad_norm": norm,
                "lr": rate,
                **reward_metrics(rewards),
                **answer_metrics(answers),
                **loss_metrics(sums[1:]),
                "policy/advantage_filtered_fraction": float(counts[0] / counts[1]),
                "policy/rollout_logprob_diff": float(counts[2] / counts[3]),
                "tokens_per_second": float(group.sum(share.tokens)) / clock.total(),
                **clock.seconds,
            }
            metrics_journal.metrics(step + 1, metrics)
            for line in transcripts(step + 1, answers, rewards, step_rows, renderer):
                samples_journal.append(line)
            context.progress.update(step=step + 1, metrics=metrics)
            training.after_step(step + 1)

        summary = {"rlSteps": str(total)}
        # Of the journal: an attempt that resumes after the last step samples no more.
        if (reward := metrics_journal.last("reward/mean")) is not None:
            summary["rlReward"] = f"{reward:.4f}"
            summary["rlJudgeErrors"] = f"{metrics_journal.total('judge/errors'):.0f}"
        return training.finish(total, inputs.model, summary)


def _checked(config: RunConfig) -> RlSpec:
    spec = config.spec.rl
    if spec is None:
        raise ConfigurationError(Reason.INVALID_SPEC, "spec.rl is absent in the rl stage")
    return spec


def _hand_over(services: Services, step: int, policy: Policy, group: Peers) -> bool:
    """Rank 0 gives the servers the weights after so many steps; gathering takes all processes.

    Returns:
        False on rank 0 after SIGTERM.
    """
    if step == 0:
        return group.rank != 0 or services.use_starting_weights()
    tensors = checkpoint_tensors(policy)
    try:
        return group.rank != 0 or services.publish(step, tensors)
    finally:
        deque(tensors, maxlen=0)  # after a fault too: the others are still giving their parts


class Clock:
    """Seconds of a step's phases.

    Attributes:
        seconds: by phase.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Ends a phase."""
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now

    def total(self) -> float:
        """Since the step began."""
        return time.monotonic() - self._begin


def reward_metrics(rewards: Sequence[Reward]) -> dict[str, float]:
    """Means over a step's answers."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return {
        "reward/mean": mean([r.total for r in rewards]),
        "reward/result": mean([r.result for r in rewards]),
        "reward/format": mean([r.format for r in rewards]),
        "reward/consistency": mean([r.consistency for r in rewards]),
        "judge/errors": float(sum(r.judge in _JUDGE_ERRORS for r in rewards)),
    }


def answer_metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """Length in tokens, and the share that was cut."""
    return {
        "response/length_mean": sum(len(a.response_ids) for a in answers) / len(answers),
        "response/truncated": sum(a.truncated for a in answers) / len(answers),
    }


def transcripts(
    step: int,
    answers: Sequence[Answer],
    rewards: Sequence[Reward],
    rows: Sequence[Row],
    renderer: Renderer,
) -> Iterator[dict[str, object]]:
    """The step's first answers with their rewards, and why. The text in them is hostile."""
    for answer, reward in list(zip(answers, rewards, strict=True))[:ANSWERS_KEPT_PER_STEP]:
        row = rows[answer.place]
        yield {
            "step": step,
            "row": row.id,
            "gold": row.gold,
            "response": renderer.decode(answer.response_ids),
            "tokens": len(answer.response_ids),
            "truncated": answer.truncated,
            "reward": reward.total,
            "result": reward.result,
            "format": reward.format,
            "consistency": reward.consistency,
            "verdict": reward.verdict,
            "judge": reward.judge.value,
            "reasons": reward.reasons.to_wire(),
        }
