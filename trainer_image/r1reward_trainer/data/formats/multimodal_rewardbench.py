# SPDX-License-Identifier: Apache-2.0
"""Multimodal RewardBench: all_data.json (repository facebookresearch/multimodal_rewardbench).

One JSON list of objects with `ID`, `Category`, `Image` (a path beside the file), `Text`,
`Output1`, `Output2` and `Better` (Output1 or Output2). The file is written by the benchmark's
own download script, which fills in `Text` of some sources.
"""

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.pieces import foreign, need
from r1reward_trainer.data.schema import ImagePath, Record

_GOLD = {"Output1": 1, "Output2": 2}


def rows(record: Record) -> list[Record]:
    """The one pair of a record.

    Raises:
        BadRecord: when a field is missing or `Better` names no output.
    """
    better, path = need(record, "Better"), need(record, "Image")
    if not isinstance(better, str) or better not in _GOLD:
        raise foreign(f"Better is {ascii(better)[:80]}, must be Output1 or Output2")
    if not isinstance(path, str):
        raise foreign(f"Image is {type(path).__name__}, must be a path")
    return [
        {
            "id": need(record, "ID"),
            "item": need(record, "ID"),
            "category": need(record, "Category"),
            "question": need(record, "Text"),
            "answer1": need(record, "Output1"),
            "answer2": need(record, "Output2"),
            "gold": _GOLD[better],
            "images": [ImagePath(path)],
        }
    ]


_FIELDS = ("ID", "Category", "Image", "Text", "Output1", "Output2", "Better")
IMPORTER = Importer(
    rows,
    columns=_FIELDS,
    required=_FIELDS,
    names={
        "id": "ID",
        "question": "Text",
        "answer1": "Output1",
        "answer2": "Output2",
        "images": "Image",
    },
)
