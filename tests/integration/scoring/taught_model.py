# SPDX-License-Identifier: Apache-2.0
"""The tiny model, taught in seconds to write one response, whatever it is asked."""

import random
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from r1reward_trainer.render import Renderer
from tests.integration.rollout.reference import MAX_PIXELS, MIN_PIXELS
from tests.integration.rollout.tiny_model import build_model, build_processor

TEMPLATE = "{question}|{answer1}|{answer2}"
_STEPS = 800
_WORDS = ("cat", "dog", "<b>", "two", "red", "is", "the", "a", "?", "!", "<script>", "x=1")


def build_taught_model(folder: Path, response: str) -> Path:
    """Saves a model that answers every short question with this response."""
    build_model(folder, seed=1)
    renderer = Renderer(
        build_processor(),
        template=TEMPLATE,
        min_pixels=MIN_PIXELS,
        max_pixels=MAX_PIXELS,
        max_prompt_tokens=400,
    )
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).train()
    answer = torch.tensor(renderer.response_ids(response))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = random.Random(0)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=_STEPS)
    for _ in range(_STEPS):
        prompt = _prompt(renderer, rng)
        ids = torch.cat([prompt, answer])[None]
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    model.eval().save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


def _prompt(renderer: Renderer, rng: random.Random) -> torch.Tensor:
    def text() -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 12)))

    return torch.tensor(renderer.prompt(text(), text(), text()).token_ids)
