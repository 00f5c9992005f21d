# SPDX-License-Identifier: Apache-2.0
"""`r1 sft`: the cold start (paper, section 3.2): fine-tuning on accepted chains of thought.

Inputs: model, chains. Outputs: weights, metrics.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer import optim
from r1reward_trainer.batch import Example, collate, micro_batch_count
from r1reward_trainer.context import StageContext
from r1reward_trainer.data.rows import AnnotatedRow, open_annotated
from r1reward_trainer.distributed import Peers, peers
from r1reward_trainer.environment import Environment
from r1reward_trainer.method import sampler
from r1reward_trainer.model import load_policy
from r1reward_trainer.outcome import ConfigurationError, Outcome
from r1reward_trainer.render import Renderer
from r1reward_trainer.training import (
    Journal,
    Prefetcher,
    Run,
    already_done,
    check_finite,
    distribute,
    fetch_inputs,
    render_row,
)


def run(config: RunConfig, context: StageContext) -> Outcome:
    """Trains on the chains and publishes the weights."""
    local_rank = Environment.from_env().local_rank
    with peers(
        context.rank, context.world_size, local_rank, context.abandon, context.stop
    ) as group:
        return already_done(config, context, group) or _train(config, context, group)


def _train(config: RunConfig, context: StageContext, group: Peers) -> Outcome:
    spec = config.spec.sft
    if spec is None:
        raise ConfigurationError(Reason.INVALID_SPEC, "spec.sft is absent in the sft stage")

    context.progress.update(message="fetching model and chains")
    inputs = fetch_inputs(config, context, group, "chains")
    rows = open_annotated(inputs.rows)
    renderer = Renderer.from_folder(inputs.model, config.spec.data)
    total = sampler.total_steps(len(rows), spec.batch_size, spec.epochs, spec.max_steps)
    count = micro_batch_count(spec.batch_size, group.world_size, spec.micro_batch_size)

    context.progress.update(message="loading the model")
    policy = load_policy(inputs.model, config.serving, group.mesh)
    optimizer = optim.adamw(policy, spec.optimizer)
    journal = Journal(context.scratch / "journal", "metrics.jsonl", writes=group.rank == 0)
    training = Run(
        config, context, group, policy, optimizer, spec.checkpoint, inputs.fingerprints, [journal]
    )
    start = training.resume()
    context.progress.update(step=start, total=total, message="training")

    def examples_of(step: int) -> tuple[list[Example], Example]:
        """This process's share of a step, and a stand-in for a process whose share is empty."""
        chosen = sampler.step_rows(spec.seed, step, len(rows), spec.batch_size)
        share = sampler.rank_share(chosen, group.rank, group.world_size)
        limit = config.serving.max_model_length
        examples = [chain_example(renderer, rows[i], limit) for i in share or chosen[:1]]
        return examples[: len(share)], examples[0]

    prefetcher = Prefetcher(examples_of, start, total)
    try:
        for step in range(start, total):
            begin = time.monotonic()
            group.at(f"step {step + 1}, training")
            examples, stand_in = group.together(prefetcher.get, step)
            response_tokens, all_tokens = group.sum(token_counts(examples)).tolist()

            own_loss = torch.zeros((), device=group.device)
            for part in distribute(examples, stand_in, spec.micro_batch_size, count):
                training.raise_if_stopped(step)
                batch = collate(part, renderer.pad_token_id, policy.vision_token_ids)
                logprobs = policy(batch.to(group.device), temperature=1.0)
                part_loss = -logprobs.sum() / response_tokens
                (part_loss * group.world_size).backward()  # FSDP averages over processes
                own_loss += part_loss.detach()
            rate = optim.learning_rate(step, total, spec.learning_rate, spec.optimizer)
            norm = optim.update(optimizer, policy, rate, spec.optimizer.max_grad_norm)

            loss = float(group.sum(own_loss.reshape(1))[0])
            ids = [rows[i].id for i in sampler.step_rows(spec.seed, step, len(rows), 4)]
            check_finite(step + 1, loss, norm, rate, f"rows {', '.join(ids)}, …")
            metrics = {
                "loss": loss,
                "grad_norm": norm,
                "lr": rate,
                "tokens_per_second": all_tokens / (time.monotonic() - begin),
            }
            journal.metrics(step + 1, metrics)
            context.progress.update(step=step + 1, metrics=metrics)
            training.after_step(step + 1)
    finally:
        prefetcher.close()
    summary = {"sftSteps": str(total)}
    # Of the journal: an attempt that resumes after the last step trains no more.
    if (final := journal.last("loss")) is not None:
        summary["sftLoss"] = f"{final:.4f}"
    return training.finish(total, inputs.model, summary)


def chain_example(renderer: Renderer, row: AnnotatedRow, max_tokens: int) -> Example:
    """The prompt of a row and the chain that is to be learnt.

    Raises:
        ConfigurationError: InvalidData, naming the row.
    """
    prompt = render_row(renderer, row)
    response = renderer.response_ids(row.response)
    if len(prompt.token_ids) + len(response) > max_tokens:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"row {row.id}: prompt and chain have {len(prompt.token_ids)} + {len(response)} "
            f"tokens, the runtime's serving.maxModelLength is {max_tokens}; raise it, or lower "
            "annotate.teacher.maxTokens or data.maxPromptTokens",
        )
    return Example(prompt.token_ids, response, prompt.pixel_values, prompt.image_grid_thw)


def token_counts(examples: Sequence[Example]) -> Tensor:
    """[2]: response tokens, all tokens."""
    responses = sum(len(e.response_ids) for e in examples)
    return torch.tensor([responses, sum(len(e) for e in examples)])
