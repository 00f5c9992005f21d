# SPDX-License-Identifier: Apache-2.0
"""RLAIF-V-Dataset (hub: openbmb/RLAIF-V-Dataset, Parquet).

Fields by its data card: `ds_name`, `image` (bytes and path), `question`, `chosen`, `rejected`,
`origin_dataset`, `origin_split`, `idx`, `image_path`.
"""

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.pieces import chosen_first, need
from r1reward_trainer.data.schema import ImagePath, Record


def rows(record: Record) -> list[Record]:
    """The one pair of a record.

    Raises:
        BadRecord: when a field is missing.
    """
    image, path = record.get("image"), record.get("image_path")
    if image is None:
        image = ImagePath(path) if isinstance(path, str) else need(record, "image")
    base = {
        "id": record.get("idx"),
        "question": need(record, "question"),
        "images": [image],
        "source": record.get("ds_name"),
        "category": record.get("origin_dataset"),
    }
    return chosen_first(base, need(record, "chosen"), need(record, "rejected"))


IMPORTER = Importer(
    rows,
    columns=(
        "ds_name",
        "image",
        "question",
        "chosen",
        "rejected",
        "origin_dataset",
        "idx",
        "image_path",
    ),
    required=("question", "chosen", "rejected"),
    names={"id": "idx", "answer1": "chosen", "answer2": "rejected", "images": "image"},
)
