# SPDX-License-Identifier: Apache-2.0
"""A Qwen2.5-VL of 1.2 million random weights, saved as a folder like a real one."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor

from r1reward_trainer.render import chain, prompt_text
from tests.digits.rows import QUESTION, SIDE, TEMPLATE, WORDS, think
from tests.small_qwen import SPECIAL_TOKENS, byte_level, config_of, processor_of, save

HIDDEN = 128
VOCABULARY = 336


def _texts() -> Iterator[str]:
    """All that the task writes: every pair of words, and every response."""
    for first in WORDS:
        for second in WORDS:
            yield prompt_text(TEMPLATE, QUESTION, first, second)
        for verdict in (1, 2):
            yield chain(verdict, think(first, verdict))
    yield "user\n"
    yield "assistant\n"


def build_processor() -> Qwen2_5_VLProcessor:
    """Byte-level BPE trained on the task's texts, and Qwen's image processor."""
    tokenizer = byte_level(Tokenizer(models.BPE()))
    tokenizer.train_from_iterator(
        _texts(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return processor_of(tokenizer, largest_side=SIDE)


def build_config(processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLConfig:
    """As wide as the digits need."""
    return config_of(
        processor,
        vocabulary=VOCABULARY,
        hidden=HIDDEN,
        intermediate=4 * HIDDEN,
        key_value_heads=4,
    )


def build_model(folder: Path, seed: int = 0) -> Path:
    """Saves model, tokenizer and processor; another seed gives other weights.

    Returns:
        The folder.
    """
    processor = build_processor()
    return save(folder, processor, build_config(processor), seed)
