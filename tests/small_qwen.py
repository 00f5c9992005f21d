# SPDX-License-Identifier: Apache-2.0
"""Parts of a small Qwen2.5-VL with random weights, which transformers and vLLM both load."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
MAX_POSITIONS = 1024
INITIAL_STD = 0.12
"""About 1/√hidden. The usual 0.02 makes every answer alike, and nothing is learnt in 700 steps."""

_CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}"
    "{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, which now takes bytes and not characters."""
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def processor_of(tokenizer: Tokenizer, largest_side: int) -> Qwen2_5_VLProcessor:
    """Qwen's processor.

    Args:
        tokenizer: without the special tokens.
        largest_side: of a square image that is not made smaller, in pixels; the smallest is 28.
    """
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": 28 * 28, "longest_edge": largest_side * largest_side}
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            chat_template=_CHAT_TEMPLATE,
            model_max_length=MAX_POSITIONS,
        ),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_CHAT_TEMPLATE,
    )


def config_of(
    processor: Qwen2_5_VLProcessor,
    *,
    vocabulary: int,
    hidden: int,
    intermediate: int,
    key_value_heads: int,
) -> Qwen2_5_VLConfig:
    """Two text and two vision layers.

    Args:
        processor: of `processor_of`.
        vocabulary: rows of the embedding.
        hidden: width of both towers; heads of 32 are the smallest that vLLM takes.
        intermediate: width of the text layers' feed-forward network.
        key_value_heads: of the text layers.
    """
    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": 2,
            "num_attention_heads": hidden // 32,
            "num_key_value_heads": key_value_heads,
            "max_position_embeddings": MAX_POSITIONS,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 2,
            "hidden_size": hidden,
            "out_hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_heads": hidden // 32,
            "fullatt_block_indexes": [1],
            "window_size": 112,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def save(folder: Path, processor: Qwen2_5_VLProcessor, config: Qwen2_5_VLConfig, seed: int) -> Path:
    """Writes model, tokenizer and processor, readable by all; another seed gives other weights.

    Returns:
        The folder.
    """
    model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, INITIAL_STD, generator=generator)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder
