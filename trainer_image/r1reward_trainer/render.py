# SPDX-License-Identifier: Apache-2.0
"""The one renderer: every prompt of SFT, RL and evaluation is made here, image first.

Questions and answers are hostile text. The chat template gives the frame around
them; they themselves are tokenised by the bare BPE model, which knows no added
token, so nothing in them can close a turn or stand for an image.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoProcessor

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import DataSpec
from r1reward_trainer.images import load_image
from r1reward_trainer.outcome import ConfigurationError

DEFAULT_TEMPLATE = """\
You are a highly skilled and impartial evaluator. Compare two responses that a Large Multimodal \
Model gave to a question about the image.

- Begin with a thorough side-by-side analysis within <think> and </think> tags. A tie is not \
permitted: you must choose the better response.
- End with a single digit within <answer> and </answer> tags: 1 if Response 1 is better, 2 if \
Response 2 is better.

### Input
[Question]:
{question}

[Response 1]:
{answer1}

[Response 2]:
{answer2}

### Output format (follow it strictly)
<think>Your detailed comparative analysis</think><answer>1 or 2</answer>"""
"""The prompt of the paper (table 1) in its parts and order."""

_SLOT = re.compile(r"\{(question|answer1|answer2)\}")


class PromptTooLong(ValueError):
    """The prompt has more tokens than allowed."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A rendered prompt.

    Attributes:
        token_ids: as the model reads it, each image expanded to its tokens.
        collapsed_ids: the same with one placeholder an image, as a server takes it.
        pixel_values: [patches, patch dimension] float32, all images one after another.
        image_grid_thw: [images, 3] int64, patches of each image in time, height and width.
        images: PNG or JPEG files with the pixels that were processed, in order.
    """

    token_ids: tuple[int, ...]
    collapsed_ids: tuple[int, ...]
    pixel_values: Tensor
    image_grid_thw: Tensor
    images: tuple[bytes, ...]


@dataclass(frozen=True)
class Pictures:
    """Images of a question, decoded and made safe once for all prompts about them.

    Attributes:
        files: PNG or JPEG files with the pixels that are processed, in order.
        sizes: tokens of each.
    """

    files: tuple[bytes, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ServedPrompt:
    """A prompt as far as a server needs it, which processes the images itself.

    Attributes:
        token_ids: each image expanded to its tokens, which the server's must equal.
        collapsed_ids: the same with one placeholder an image, as a server takes it.
    """

    token_ids: tuple[int, ...]
    collapsed_ids: tuple[int, ...]


def prompt_text(template: str | None, question: str, answer1: str, answer2: str) -> str:
    """The template with its slots filled, once: slots inside the fillings stay as they are."""
    fillings = {"question": question, "answer1": answer1, "answer2": answer2}
    return _SLOT.sub(lambda slot: fillings[slot[1]], template or DEFAULT_TEMPLATE)


def chain(verdict: int, think: str) -> str:
    """A whole response: chain of thought and verdict."""
    return f"<think>{think}</think><answer>{verdict}</answer>"


class Renderer:
    """Makes prompts for one model.

    Args:
        processor: a Qwen2.5-VL processor: fast byte-level BPE tokenizer with a chat template,
            and an image processor that takes its size as fewest and most pixels.
        template: prompt with slots; None: DEFAULT_TEMPLATE.
        min_pixels, max_pixels: images are resized to between so many pixels.
        max_prompt_tokens: longer prompts raise PromptTooLong.

    Raises:
        ConfigurationError: when the processor is of another kind.
    """

    def __init__(
        self,
        processor: Any,
        *,
        template: str | None,
        min_pixels: int,
        max_pixels: int,
        max_prompt_tokens: int,
    ) -> None:
        self.processor = processor
        self._tokenizer = processor.tokenizer
        self._image_processor = processor.image_processor
        self._template = template
        self._size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
        self._max_prompt_tokens = max_prompt_tokens
        self._frames: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self._text_tokenizer = _bare_tokenizer(self._tokenizer)
        self.end_token_id: int = self._required("eos_token_id", self._tokenizer.eos_token_id)
        self.image_token_id: int = self._required("image_token_id", processor.image_token_id)
        pad = self._tokenizer.pad_token_id
        self.pad_token_id: int = self.end_token_id if pad is None else pad
        patch = self._image_processor.patch_size**2 * self._image_processor.temporal_patch_size
        self._no_pixels = torch.empty(0, 3 * patch)

    @classmethod
    def from_folder(cls, folder: Path, data: DataSpec) -> "Renderer":
        """From a model folder, without running any code of it.

        Raises:
            ConfigurationError: when the folder holds no usable processor.
        """
        try:
            processor = AutoProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigurationError(
                Reason.INVALID_MODEL, f"{folder} has no processor that can be loaded: {error}"
            ) from error
        return cls(
            processor,
            template=data.prompt_template,
            min_pixels=data.min_pixels,
            max_pixels=data.max_pixels,
            max_prompt_tokens=data.max_prompt_tokens,
        )

    def prompt(
        self, question: str, answer1: str, answer2: str, images: Sequence[bytes] = ()
    ) -> Prompt:
        """Renders one comparison.

        Args:
            question, answer1, answer2: untrusted text.
            images: PNG, JPEG or WebP files.

        Raises:
            PromptTooLong: with the numbers.
            InvalidImage: for an image that cannot be used.
        """
        loaded = [load_image(data) for data in images]
        processed = [self._process(image) for image, _ in loaded]
        sizes = [self._tokens(int(grid.prod())) for _, grid in processed]
        ids = self._ids(question, answer1, answer2, sizes)
        return Prompt(
            token_ids=ids.token_ids,
            collapsed_ids=ids.collapsed_ids,
            pixel_values=torch.cat([self._no_pixels, *(pixels for pixels, _ in processed)]),
            image_grid_thw=torch.cat([_NO_GRID, *(grid for _, grid in processed)]),
            images=tuple(file for _, file in loaded),
        )

    def pictures(self, images: Sequence[bytes]) -> Pictures:
        """Loads images for `served_prompt`, without processing their pixels.

        Raises:
            InvalidImage: for an image that cannot be used.
        """
        limits = {
            "min_pixels": self._size["shortest_edge"],
            "max_pixels": self._size["longest_edge"],
        }
        files: list[bytes] = []
        sizes: list[int] = []
        for data in images:
            image, file = load_image(data)
            patches = self._image_processor.get_number_of_image_patches(
                image.height, image.width, images_kwargs=limits
            )
            del image  # decoded, one alone may have 150 MB
            files.append(file)
            sizes.append(self._tokens(patches))
        return Pictures(tuple(files), tuple(sizes))

    def served_prompt(
        self, question: str, answer1: str, answer2: str, pictures: Pictures
    ) -> ServedPrompt:
        """The tokens of `prompt` with the same images.

        Raises:
            PromptTooLong: with the numbers.
        """
        return self._ids(question, answer1, answer2, pictures.sizes)

    def response_ids(self, text: str) -> tuple[int, ...]:
        """A response as the model should write it, the end token appended."""
        return (*self._text_ids(text), self.end_token_id)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a response without its end token; control tokens inside stay visible."""
        body = list(ids)
        if body and body[-1] in (self.end_token_id, self.pad_token_id):
            body.pop()
        return self._tokenizer.decode(
            body, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def _ids(self, question: str, answer1: str, answer2: str, sizes: Sequence[int]) -> ServedPrompt:
        """The prompt's tokens, for images of so many tokens each."""
        before, after = self._frame(len(sizes))
        middle = self._text_ids(prompt_text(self._template, question, answer1, answer2))
        expanded = self._expand(before, sizes) + middle + after
        if len(expanded) > self._max_prompt_tokens:
            raise PromptTooLong(
                f"the prompt has {len(expanded)} tokens, {sum(sizes)} of them for images; "
                f"data.maxPromptTokens allows {self._max_prompt_tokens}"
            )
        return ServedPrompt(expanded, before + middle + after)

    def _tokens(self, patches: int) -> int:
        return patches // self._image_processor.merge_size**2

    def _text_ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._text_tokenizer.encode(text, add_special_tokens=False).ids)

    def _process(self, image: Any) -> tuple[Tensor, Tensor]:
        """[patches, dimension] and [1, 3] of one image."""
        out = self._image_processor(images=[image], size=self._size, return_tensors="pt")
        return out["pixel_values"].float(), out["image_grid_thw"].long()

    def _expand(self, ids: tuple[int, ...], sizes: Sequence[int]) -> tuple[int, ...]:
        remaining = iter(sizes)
        expanded: list[int] = []
        for token in ids:
            expanded += [token] * (next(remaining) if token == self.image_token_id else 1)
        return tuple(expanded)

    def _frame(self, images: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens of the chat template before and after the text, for a number of images."""
        if images not in self._frames:
            self._frames[images] = self._render_frame(images)
        return self._frames[images]

    def _render_frame(self, images: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        marker = f"r1{secrets.token_hex(16)}"
        content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": marker}]
        rendered = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        parts = rendered.split(marker)
        ids = [tuple(self._tokenizer(p, add_special_tokens=False)["input_ids"]) for p in parts]
        counts = [part.count(self.image_token_id) for part in ids]
        if counts != [images, 0]:
            raise ConfigurationError(
                Reason.INVALID_MODEL,
                f"the model's chat template must put {images} image placeholders before the text "
                "and the text once: use a Qwen2.5-VL chat template",
            )
        return ids[0], ids[1]

    def _required(self, name: str, value: int | None) -> int:
        if value is None:
            raise ConfigurationError(Reason.INVALID_MODEL, f"the model's processor has no {name}")
        return value


def _bare_tokenizer(tokenizer: Any) -> Tokenizer:
    """The tokenizer without its added tokens: text gives pieces of text and nothing else."""
    full = getattr(tokenizer, "backend_tokenizer", None)
    if full is None:
        raise ConfigurationError(
            Reason.INVALID_MODEL, "the model has no fast tokenizer: add its tokenizer.json"
        )
    bare = Tokenizer(full.model)
    if full.normalizer is not None:
        bare.normalizer = full.normalizer
    if full.pre_tokenizer is not None:
        bare.pre_tokenizer = full.pre_tokenizer
    added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
    for token in added.values():
        if not added.keys().isdisjoint(bare.encode(token, add_special_tokens=False).ids):
            raise ConfigurationError(
                Reason.INVALID_MODEL,
                f"the tokenizer's own vocabulary forms the control token {token!r} from plain "
                "text, so untrusted text could forge it: use a tokenizer of the Qwen family",
            )
    return bare


_NO_GRID = torch.empty(0, 3, dtype=torch.int64)
