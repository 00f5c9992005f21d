# SPDX-License-Identifier: Apache-2.0
"""No judged text reaches the model as a control token, or changes how many images it sees."""

import io

import pytest
from PIL import Image
from tokenizers import AddedToken, normalizers

from r1reward_trainer.method.judge_prompt import judge_prompt, think_tail
from r1reward_trainer.render import Renderer
from r1reward_trainer.verifier.protocol import as_unicode
from tests.integration.rollout.tiny_model import build_processor
from tests.unit.verifier.hostile import QWEN_TOKENS, broken_utf8, dense, noise, responses

CASES = 10_000
LONG = [
    *(noise(100_000, seed) for seed in range(2)),
    *(broken_utf8(100_000, seed) for seed in range(2)),
    "".join(QWEN_TOKENS) * 300,
]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """With all added tokens of Qwen2.5-VL."""
    processor = build_processor()
    known = processor.tokenizer.get_vocab()
    processor.tokenizer.add_tokens(
        [AddedToken(token, special=False) for token in QWEN_TOKENS if token not in known]
    )
    return Renderer(
        processor, template=None, min_pixels=784, max_pixels=3136, max_prompt_tokens=2_000_000
    )


@pytest.fixture(scope="module")
def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28)).save(buffer, "PNG")
    return buffer.getvalue()


def texts() -> list[str]:
    return [as_unicode(text) for text in (*responses(CASES, seed=1), *LONG)]


def test_the_tokenizer_would_take_them_for_control_tokens(renderer) -> None:
    control = set(renderer.processor.tokenizer.added_tokens_decoder)
    taken = set(renderer.processor.tokenizer("".join(QWEN_TOKENS))["input_ids"])
    assert len(control) == len(QWEN_TOKENS)
    assert taken == control


def test_no_prompt_has_a_control_token_or_an_image_that_is_not_the_renderers(
    renderer, picture
) -> None:
    control = set(renderer.processor.tokenizer.added_tokens_decoder)

    def frame(*slots: str) -> list[int]:
        prompt = renderer.prompt(*slots, [picture, picture])
        assert prompt.collapsed_ids.count(renderer.image_token_id) == 2
        return [token for token in prompt.token_ids if token in control]

    hostile = texts()
    usual = frame("q", "a", "b")
    for i in range(0, CASES, 3):  # each text once, in one of the three slots
        assert frame(*hostile[i : i + 3]) == usual, hostile[i : i + 3]
    for text in LONG:
        for slot in range(3):
            slots = ["q", "a", "b"]
            slots[slot] = as_unicode(text)
            assert frame(*slots) == usual


def test_no_response_has_a_control_token_but_its_end(renderer) -> None:
    control = set(renderer.processor.tokenizer.added_tokens_decoder)
    for text in texts():
        ids = renderer.response_ids(text)
        assert [token for token in ids if token in control] == [renderer.end_token_id]
        assert ids[-1] == renderer.end_token_id
        assert renderer.decode(ids) == text


def test_no_chain_makes_a_question_of_more_tokens_than_a_judge_is_said_to_need() -> None:
    tokenizer = build_processor().tokenizer  # knows bytes alone: as many tokens as there can be
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # as Qwen's
    lengths = [
        len(tokenizer(judge_prompt(think_tail(text), 1))["input_ids"]) for text in dense(4000)
    ]
    assert 4600 < min(lengths) <= max(lengths) <= 4700
