# SPDX-License-Identifier: Apache-2.0
"""A Qwen2.5-VL that answers at random, a byte at a time, as a folder like a real one."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Qwen2_5_VLProcessor

from tests.small_qwen import byte_level, config_of, processor_of, save


def build_processor() -> Qwen2_5_VLProcessor:
    """Byte-level tokenizer without merges; images of 28 × 28 to 56 × 56 pixels as they are."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    return processor_of(byte_level(tokenizer), largest_side=56)


def build_model(folder: Path, seed: int) -> Path:
    """Saves model and processor; another seed gives other weights of the same shape.

    Returns:
        The folder.
    """
    processor = build_processor()
    config = config_of(
        processor,
        vocabulary=320,
        hidden=64,
        intermediate=128,
        key_value_heads=1,
    )
    return save(folder, processor, config, seed)
