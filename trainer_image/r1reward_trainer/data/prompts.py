# SPDX-License-Identifier: Apache-2.0
"""Whether prompts can be made for a model, and whether a row's fits into the lengths allowed."""

import io
import unicodedata
from pathlib import Path

from PIL import Image

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import DataSpec
from r1reward_trainer.data.normal_form import is_crowded
from r1reward_trainer.data.rows import AnnotatedRow, Row
from r1reward_trainer.data.schema import BadReason, BadRecord
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.render import PromptTooLong, Renderer

_FEWEST_PIXELS_PER_TOKEN = 14 * 14
"""No vision tower in use spends more than one token on a patch of this size."""
_NFC_GROWTH = 3
"""No text in UTF-8 is longer than so many times its length after NFC (Unicode's FAQ)."""


def check_rendering(model: Path, name: str, data: DataSpec) -> None:
    """Makes a prompt with an image, as every later stage will.

    Args:
        model: folder with tokenizer and processor.
        name: field and value, for messages.
        data: template and limits.

    Raises:
        ConfigurationError: InvalidModel, when the model's processor is of another kind.
    """
    buffer = io.BytesIO()
    Image.new("RGB", (56, 56)).save(buffer, "PNG")
    try:
        Renderer.from_folder(model, data).prompt("q", "a", "b", [buffer.getvalue()])
    except PromptTooLong:
        return  # the rows will say so, each with its length
    except ConfigurationError as error:
        raise ConfigurationError(error.reason, f"{name}: {error.message}") from error
    except Exception as error:  # each family's processor fails in its own way
        raise ConfigurationError(
            Reason.INVALID_MODEL,
            f"{name}: its processor makes no prompts as Qwen2.5-VL's does "
            f"({type(error).__name__}: {str(error)[:200]}); give a model of that family",
        ) from error


class PromptCheck:
    """Raises BadRecord for a row that the model cannot take.

    Rendering decodes and resizes every image, which is slow. So a row is rendered only when
    an upper bound of its length is over the limit: texts have at most a token a byte, and the
    pixels of an image are limited.

    Args:
        model: folder with tokenizer and processor.
        data: template and limits.
    """

    def __init__(self, model: Path, data: DataSpec) -> None:
        self._renderer = Renderer.from_folder(model, data)
        self._limit = data.max_prompt_tokens
        self._image_bound = data.max_pixels // _FEWEST_PIXELS_PER_TOKEN
        self._fixed: int | None = None

    def __call__(self, row: Row) -> None:
        """Raises BadRecord when the prompt is too long."""
        if self._fixed is not None and self._fixed + self._bound(row) <= self._limit:
            return
        try:
            prompt = self._renderer.prompt(row.question, row.answer1, row.answer2, row.images)
        except PromptTooLong as error:
            raise BadRecord(BadReason.PROMPT_TOO_LONG, str(error)) from error
        if self._fixed is None:
            # Chat markup and template are part of every prompt, and so of this one.
            self._fixed = len(prompt.token_ids)

    def _bound(self, row: Row) -> int:
        texts = sum(map(_most_tokens, (row.question, row.answer1, row.answer2)))
        return texts + len(row.images) * self._image_bound


class ChainCheck:
    """Raises BadRecord for a row whose prompt is too long, or whose prompt and response are
    together.

    Args:
        model: folder with tokenizer and processor.
        data: template and limits.
        max_model_length: tokens of prompt and response.
    """

    def __init__(self, model: Path, data: DataSpec, max_model_length: int) -> None:
        self._check_prompt = PromptCheck(model, data)
        self._renderer = Renderer.from_folder(model, data)
        self._longest_prompt = data.max_prompt_tokens
        self._limit = max_model_length

    def __call__(self, row: AnnotatedRow) -> None:
        """Raises BadRecord when either is too long."""
        self._check_prompt(row)
        if self._longest_prompt + _most_tokens(row.response) < self._limit:
            return  # one more ends the response
        prompt = self._renderer.prompt(row.question, row.answer1, row.answer2, row.images)
        tokens, response = len(prompt.token_ids), len(self._renderer.response_ids(row.response))
        if tokens + response > self._limit:
            raise BadRecord(
                BadReason.RESPONSE_TOO_LONG,
                f"prompt and response have {tokens} + {response} tokens; the runtime's "
                f"serving.maxModelLength is {self._limit}",
            )


def _most_tokens(text: str) -> int:
    """No text has more tokens than this: each covers at least a byte, of the text or of its
    composed form (NFC), which a tokenizer may read instead and which can be the longer one."""
    written = len(text.encode())
    if is_crowded(text):
        return _NFC_GROWTH * written
    return max(written, len(unicodedata.normalize("NFC", text).encode()))
