# SPDX-License-Identifier: Apache-2.0
"""Lengths of texts in a model's tokens."""

from pathlib import Path

from r1reward_api.reasons import Reason
from r1reward_trainer.data.quality import CountTokens
from r1reward_trainer.outcome import ConfigurationError


def token_counter(model: Path) -> CountTokens:
    """Counts the tokens of a text.

    Args:
        model: folder with a tokenizer; nothing else is read, and nothing of it is run.

    Raises:
        ConfigurationError: when there is no tokenizer that can be loaded.
    """
    from transformers import AutoTokenizer  # takes seconds, and is not always wanted

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model, local_files_only=True, trust_remote_code=False
        )
        encode = tokenizer.backend_tokenizer.encode
    except Exception as error:  # a broken file raises whatever its damage leads to
        raise ConfigurationError(
            Reason.INVALID_MODEL,
            f"{model} has no fast tokenizer that can be loaded: {str(error)[:200]}; give a folder "
            "with tokenizer.json",
        ) from error
    return lambda text: len(encode(text, add_special_tokens=False).ids)
