# SPDX-License-Identifier: Apache-2.0
"""VL-RewardBench and MM-RLHF-RewardBench as the R1-Reward release ships them (JSONL; read in its
repository: inference/VL-Reward-Bench/data.jsonl, inference/MM-RLHF-Reward/mm_reward_bench.jsonl).

Each line is one pair: `id` (not unique), `prompt`, `chosen`, `rejected`, and `image`, a path, or
`video`, a folder of frames. The chosen answer stands first in the release's own evaluation; here
the order is balanced as everywhere. MM-RLHF-RewardBench takes its categories from the path.
"""

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.pieces import chosen_first, foreign, need
from r1reward_trainer.data.schema import ImagePath, Record, Video


def rows(record: Record) -> list[Record]:
    """The one pair of a record.

    Raises:
        BadRecord: when a field is missing, or it has not either an image or a video.
    """
    path, video = record.get("image"), record.get("video")
    media = path if video is None else video
    if not isinstance(media, str) or (path is not None and video is not None):
        raise foreign("either image or video must be a path")
    base = {
        "id": need(record, "id"),
        "item": need(record, "id"),
        "category": media,
        "question": need(record, "prompt"),
        "images": [ImagePath(media)] if video is None else Video(media),
    }
    return chosen_first(base, need(record, "chosen"), need(record, "rejected"))


IMPORTER = Importer(
    rows,
    columns=("id", "prompt", "chosen", "rejected", "image", "video"),
    required=("id", "prompt", "chosen", "rejected"),
    names={
        "question": "prompt",
        "answer1": "chosen",
        "answer2": "rejected",
        "images": "image or video",
    },
)
