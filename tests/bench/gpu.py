# SPDX-License-Identifier: Apache-2.0
"""`make bench-gpu`: loss and training step of Qwen2.5-VL-3B on one GPU, beside a naive loss.

The peer is what a first version would do: logits of every token in fp32, log-softmax,
gather. Both run in turn on the same model and batch, so that a ratio has the noise of
both in it. Weights are random (time and memory do not depend on them). Model FLOPs utilisation
(mfu) is against the card's own bf16 matrix product, measured in the same run. All sizes need a card
of about 100 GB; on a smaller one those that do not fit are null.

Needs torch, transformers and one GPU; without one it says so and ends.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from transformers.modeling_outputs import BaseModelOutput

from r1reward_trainer.batch import Batch, Example, collate
from r1reward_trainer.logprobs import response_logprobs
from r1reward_trainer.sharding import shard
from tests.bench.spread import Spread

RESULT = Path("docs/results/bench-gpu.json")
PROMPT_TEXT_TOKENS, IMAGE_PATCHES, RESPONSE_TOKENS = 760, (50, 50), 350
"""A comparison with one image near the default pixel cap; 20 % of its tokens are response."""
SEQUENCES = (2, 4, 8)
LOSS_TOKENS = (4096, 16384, 32768)
LOSS_ROUNDS, STEP_ROUNDS = 20, 8
MATMUL_SIDE = 8192

Loss = Callable[[Any, Batch], Tensor]


@dataclass(frozen=True)
class Measured:
    """One way of doing it."""

    seconds: Spread
    peak_gib: float


def config_3b() -> transformers.Qwen2_5_VLConfig:
    """Qwen2.5-VL-3B-Instruct."""
    return transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128000,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [16, 24, 24],
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "window_size": 112,
        },
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        tie_word_embeddings=True,
    )


class Policy(nn.Module):
    """The FSDP root of a training step, as in the trainer, with the loss to be measured."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, loss: Loss) -> Tensor:
        """A scalar."""
        return loss(self.model, batch)


def selective_loss(model: Any, batch: Batch) -> Tensor:
    """Ours: the output head on response tokens, in chunks."""
    return -response_logprobs(model, batch, 1.0).sum() / batch.mask.sum()


def naive_loss(model: Any, batch: Batch) -> Tensor:
    """The peer: fp32 log-softmax over the vocabulary for every token, then a choice."""
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        mm_token_type_ids=batch.mm_token_type_ids,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        use_cache=False,
    ).logits
    everywhere = torch.log_softmax(logits.float(), dim=-1)
    rows = torch.arange(len(logits), device=logits.device).unsqueeze(1)
    chosen = everywhere[rows, batch.positions].gather(2, batch.targets.unsqueeze(2)).squeeze(2)
    return -(chosen * batch.mask).sum() / batch.mask.sum()


def make_batch(config: Any, sequences: int, seed: int = 0) -> Batch:
    """Random comparisons: image first, then text, then the response."""
    generator = torch.Generator().manual_seed(seed)
    vision = config.vision_config
    grid = torch.tensor([[1, *IMAGE_PATCHES]])
    patches = int(grid.prod())
    image_tokens = patches // vision.spatial_merge_size**2
    ordinary = min(config.text_config.vocab_size, config.vision_start_token_id)
    dimension = 3 * vision.temporal_patch_size * vision.patch_size**2

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(ordinary, (count,), generator=generator).tolist())

    examples = [
        Example(
            (
                config.vision_start_token_id,
                *(config.image_token_id,) * image_tokens,
                config.vision_end_token_id,
                *tokens(PROMPT_TEXT_TOKENS),
            ),
            tokens(RESPONSE_TOKENS),
            torch.randn(patches, dimension, generator=generator),
            grid,
        )
        for _ in range(sequences)
    ]
    return collate(examples, 0, (config.image_token_id, config.video_token_id))


def useful_flops(model: Any, batch: Batch) -> float:
    """Floating-point operations of one step that any correct implementation needs.

    Forward and backward are 6 per weight and token: decoder on all tokens, head on response
    tokens, vision tower on patches; and the decoder's causal attention. Nothing for
    recomputation, nothing for logits that no loss reads.
    """
    text = model.config.text_config
    head = text.vocab_size * text.hidden_size
    tower = sum(p.numel() for p in model.model.visual.parameters())
    decoder = sum(p.numel() for p in model.model.language_model.parameters()) - head
    lengths = batch.attention_mask.sum(1).double()
    attention = 6 * text.num_hidden_layers * text.hidden_size * float((lengths**2).sum())
    return (
        6.0 * decoder * float(lengths.sum())
        + 6.0 * head * float(batch.mask.sum())
        + 6.0 * tower * len(batch.pixel_values)
        + attention
    )


class Meter:
    """Times work on a device, with everything before and in it finished."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"

    def seconds(self, work: Callable[[], object]) -> float:
        """Wall-clock seconds."""
        self._synchronize()
        begin = time.perf_counter()
        work()
        self._synchronize()
        return time.perf_counter() - begin

    def peak_gib(self, work: Callable[[], object]) -> float:
        """Most memory that was allocated at once, what was there before included."""
        if not self._gpu:
            work()
            return 0.0
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        work()
        self._synchronize()
        return torch.cuda.max_memory_allocated() / 2**30

    def _synchronize(self) -> None:
        if self._gpu:
            torch.cuda.synchronize()


def compare(
    ours: Callable[[], object], naive: Callable[[], object], rounds: int, meter: Meter
) -> dict[str, Any]:
    """Both in turn, after one round that does not count.

    Returns:
        Each one's seconds and peak memory, None for one that the card has no memory for, and the
        ratio of the times round by round.
    """
    works = {"ours": ours, "naive": naive}
    peaks = {name: _peak(meter, work) for name, work in works.items()}
    fits = [name for name, peak in peaks.items() if peak is not None]
    rows = [[meter.seconds(works[name]) for name in fits] for _ in range(rounds)]
    times = dict(zip(fits, zip(*rows, strict=True), strict=True))
    result: dict[str, Any] = {
        name: None if peak is None else asdict(Measured(Spread.of(times[name]), peak))
        for name, peak in peaks.items()
    }
    if len(fits) == len(works):
        ratios = [slow / fast for fast, slow in zip(times["ours"], times["naive"], strict=True)]
        result["naive_over_ours_seconds"] = asdict(Spread.of(ratios))
    return result


def _peak(meter: Meter, work: Callable[[], object]) -> float | None:
    try:
        return meter.peak_gib(work)
    except torch.OutOfMemoryError:
        return None


def bench_loss(config: Any, tokens: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Output head, log-probs and their gradient, from hidden states of one long sequence."""
    text = config.text_config
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    head = nn.Linear(text.hidden_size, text.vocab_size, bias=False, device=device, dtype=dtype)
    response = tokens // 5
    hidden: Any = torch.randn(1, tokens, text.hidden_size, device=device, dtype=dtype)
    hidden.requires_grad_()
    targets = torch.randint(text.vocab_size, (1, response), device=device)
    positions = torch.arange(tokens - response - 1, tokens - 1, device=device).unsqueeze(0)
    mask = torch.ones(1, response, dtype=torch.bool, device=device)

    class Fixed:
        """A model whose hidden states are given."""

        config = None

        def model(self, **_: object) -> Any:
            return BaseModelOutput(last_hidden_state=hidden)

        def get_output_embeddings(self) -> nn.Module:
            return head

    batch = Batch(
        input_ids=targets,
        attention_mask=targets,
        mm_token_type_ids=targets,
        pixel_values=hidden,
        image_grid_thw=positions,
        positions=positions,
        targets=targets,
        mask=mask,
    )

    def clear() -> None:
        hidden.grad = head.weight.grad = None

    def ours() -> None:
        clear()
        (-response_logprobs(Fixed(), batch, 1.0).sum() / response).backward()

    def naive() -> None:
        clear()
        everywhere = torch.log_softmax(head(hidden).float(), dim=-1)
        (-everywhere[0, positions[0]].gather(1, targets.T).sum() / response).backward()

    return {
        "tokens": tokens,
        "response_tokens": response,
        **compare(ours, naive, rounds, Meter(device)),
    }


def bench_step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    rounds: int,
    limit_flops: float,
    meter: Meter,
) -> dict[str, Any]:
    """Forward, backward, clipping and AdamW of one micro-batch."""

    def step(loss: Loss) -> None:
        optimizer.zero_grad(set_to_none=True)  # of a step that found no memory
        policy(batch, loss).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    flops = useful_flops(policy.model, batch)
    result = compare(lambda: step(selective_loss), lambda: step(naive_loss), rounds, meter)
    for way in ("ours", "naive"):
        if result[way] is None:
            continue
        seconds = result[way]["seconds"]["median"]
        result[way]["tokens_per_second"] = float(batch.attention_mask.sum()) / seconds
        result[way]["mfu"] = flops / seconds / limit_flops
    return {
        "sequences": len(batch.input_ids),
        "tokens": int(batch.attention_mask.sum()),
        "response_tokens": int(batch.mask.sum()),
        "useful_teraflops": flops / 1e12,
        **result,
    }


def matmul_rate(side: int, device: torch.device, rounds: int = 20) -> float:
    """Floating-point operations a second of a large bf16 matrix product."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    meter = Meter(device)
    for _ in range(3):
        F.linear(a, b)
    return (
        2
        * side**3
        / statistics.median(meter.seconds(lambda: F.linear(a, b)) for _ in range(rounds))
    )


def run(
    config: Any,
    device: torch.device,
    sequences: Sequence[int],
    loss_tokens: Sequence[int],
    loss_rounds: int,
    step_rounds: int,
    matmul_side: int,
) -> dict[str, Any]:
    """All measurements, as they go into the result."""
    limit = matmul_rate(matmul_side, device)
    losses = [bench_loss(config, tokens, loss_rounds, device) for tokens in loss_tokens]
    gc.collect()

    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1
    )
    try:
        torch.manual_seed(0)
        with device:
            model = transformers.AutoModelForImageTextToText.from_config(
                config, dtype=torch.float32, attn_implementation="sdpa"
            )
        policy = Policy(model.train())
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        shard(policy, model, dtype=dtype, mesh=init_device_mesh(device.type, (1,)))
        optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6, fused=device.type == "cuda")
        steps = [
            bench_step(policy, optimizer, batch.to(device), step_rounds, limit, Meter(device))
            for batch in (make_batch(config, count) for count in sequences)
        ]
        parameters = sum(p.numel() for p in policy.parameters())
    finally:
        dist.destroy_process_group()
    return {
        "parameters": parameters,
        "matmul_teraflops_per_second": limit / 1e12,
        "loss": losses,
        "step": steps,
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: nothing measured")
        return
    device = torch.device("cuda", 0)
    result = {
        "what": "Qwen2.5-VL-3B, random weights, bf16 with fp32 state, one GPU",
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **run(config_3b(), device, SEQUENCES, LOSS_TOKENS, LOSS_ROUNDS, STEP_ROUNDS, MATMUL_SIDE),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
