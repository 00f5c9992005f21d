# SPDX-License-Identifier: Apache-2.0
"""A tiny Qwen2.5-VL with its processor, and examples with images of different sizes."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r1reward_api.resource.runtime import ModelServing
from r1reward_trainer.batch import Example
from r1reward_trainer.distributed import Peers, peers
from r1reward_trainer.model import Policy, load_model, stored_tensors
from r1reward_trainer.render import Renderer
from tests.integration.rollout.tiny_model import build_model

SERVING = ModelServing(dtype="float32", max_model_length=512)

MakeExample = Callable[..., Example]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="session")
def renderer(model_folder: Path) -> Renderer:
    from transformers import AutoProcessor

    return Renderer(
        AutoProcessor.from_pretrained(model_folder),
        template="{question} {answer1} {answer2}",
        min_pixels=28 * 28,
        max_pixels=56 * 56,
        max_prompt_tokens=256,
    )


@pytest.fixture
def policy(model_folder: Path) -> Policy:
    model = load_model(model_folder, SERVING)
    return Policy(model, stored_tensors(model, model_folder))


@pytest.fixture
def alone() -> Iterator[Peers]:
    with peers(0, 1, 0) as group:
        yield group


def png(seed: int, height: int = 56, width: int = 56) -> bytes:
    """Noise, as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def make_example(renderer: Renderer) -> MakeExample:
    def make(
        question: str = "which?",
        response: str = "<think>a</think><answer>1</answer>",
        image: bytes | None = None,
    ) -> Example:
        images = [] if image is None else [image]
        prompt = renderer.prompt(question, "left", "right", images)
        return Example(
            prompt.token_ids,
            renderer.response_ids(response),
            prompt.pixel_values,
            prompt.image_grid_thw,
        )

    return make
