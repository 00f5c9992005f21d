# SPDX-License-Identifier: Apache-2.0
"""The wire form of a prompt with images."""

from collections.abc import Sequence


def collapse_image_tokens(token_ids: Sequence[int], image_token_id: int) -> tuple[int, ...]:
    """Each run of the image token becomes one: the form that a server expands.

    A server expands every placeholder it finds, so an expanded prompt would be expanded twice,
    without an error. Two images are always apart by their begin and end tokens.
    """
    return tuple(
        token
        for index, token in enumerate(token_ids)
        if token != image_token_id or index == 0 or token_ids[index - 1] != image_token_id
    )
