# SPDX-License-Identifier: Apache-2.0
"""The tiny model, taught in seconds to write one response, whatever it is asked."""

import random
import string
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from r1reward_trainer.render import Renderer
from tests.integration.rollout.reference import MAX_PIXELS, MIN_PIXELS, picture
from tests.integration.rollout.tiny_model import build_model, build_processor

TEMPLATE = "{question}|{answer1}|{answer2}"
_SIZES = ((56, 56), (84, 84), (28, 56))
_STEPS = 550
_BATCH = 6
_LONGEST = 60
_LETTERS = string.ascii_lowercase + "  " + string.printable[:95]


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
    answer = renderer.response_ids(response)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = random.Random(0)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=_STEPS)
    for _ in range(_STEPS):
        one, two, three = (rng.randint(1, _LONGEST) for _ in range(3))
        images = [picture(rng.randrange(256), *rng.choice(_SIZES))] if rng.random() < 0.5 else []
        prompts = [
            renderer.prompt(_text(rng, one), _text(rng, two), _text(rng, three), images)
            for _ in range(_BATCH)
        ]
        # A letter is a token, so that prompts of one step are equally long.
        ids = torch.stack([torch.tensor(p.token_ids + answer) for p in prompts])
        labels = ids.clone()
        labels[:, : -len(answer)] = -100
        pixels: dict[str, torch.Tensor] = {}
        if images:
            pixels["pixel_values"] = torch.cat([p.pixel_values for p in prompts])
            pixels["image_grid_thw"] = torch.cat([p.image_grid_thw for p in prompts])
        loss = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == renderer.image_token_id).int(),
            labels=labels,
            **pixels,
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    model.eval().save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


def _text(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(_LETTERS) for _ in range(length))
