# SPDX-License-Identifier: Apache-2.0
"""The hold-out: by image, so that no held-out image was seen in training."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError

ImageHash = bytes
HASH_BYTES = 16


def image_hash(image: bytes) -> ImageHash:
    """HASH_BYTES that stand for an encoded image."""
    return hashlib.sha256(image).digest()[:HASH_BYTES]


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """Rows that hang together by shared images.

    Attributes:
        name: the smallest of its image hashes.
        images: how many different images.
        rows: positions, rising.
    """

    name: ImageHash
    images: int
    rows: tuple[int, ...]


def group_by_image(images: Sequence[Sequence[ImageHash]]) -> list[ImageGroup]:
    """Connected components of rows over shared images, in the order of their first row.

    Args:
        images: for each row the hashes of its images; at least one.
    """
    parent: dict[ImageHash, ImageHash] = {}

    def root(image: ImageHash) -> ImageHash:
        while parent[image] != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    for row in images:
        for image in row:
            parent.setdefault(image, image)
            first, other = sorted((root(row[0]), root(image)))
            parent[other] = first  # the smallest hash becomes the root
    sizes: dict[ImageHash, int] = {}
    for image in parent:
        sizes[root(image)] = sizes.get(root(image), 0) + 1
    rows: dict[ImageHash, list[int]] = {}
    for position, row in enumerate(images):
        rows.setdefault(root(row[0]), []).append(position)
    return [ImageGroup(name, sizes[name], tuple(of)) for name, of in rows.items()]


def shuffled(groups: Sequence[ImageGroup], seed: int, purpose: str) -> list[ImageGroup]:
    """A seeded order that depends on the images only, not on the order of the rows."""
    return sorted(
        groups,
        key=lambda g: hashlib.sha256(f"{purpose}:{seed}:".encode() + g.name).digest(),
    )


def held_out_rows(images: Sequence[Sequence[ImageHash]], fraction: float, seed: int) -> set[int]:
    """Positions of the rows to hold out: about `fraction` of the images, at least one.

    Args:
        images: for each row the hashes of its images.
        fraction: share of the images, in (0, 1).
        seed: chooses which.

    Raises:
        ConfigurationError: when a side would be empty.
    """
    groups = group_by_image(images)
    if len(groups) < 2:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"data.holdout: {len(images)} good rows hang together by shared images, so none can "
            "be held out apart from the others: at least two rows with different images are "
            "needed",
        )
    wanted = max(1, round(fraction * sum(group.images for group in groups)))
    order = shuffled(groups, seed, "holdout")
    chosen: list[ImageGroup] = []
    taken = 0
    for group in order:
        if taken + group.images <= wanted and len(chosen) < len(groups) - 1:
            chosen.append(group)
            taken += group.images
    if not chosen:  # every group is larger than the share that was asked for
        chosen = [min(order, key=lambda group: group.images)]
    return {row for group in chosen for row in group.rows}
