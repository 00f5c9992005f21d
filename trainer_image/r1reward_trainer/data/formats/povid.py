# SPDX-License-Identifier: Apache-2.0
"""POVID (hub: YiyangAiLab/POVID_preference_data_for_VLLMs, one JSON list).

The authors' training (repository YiyangZhou/POVID, llava/train/train_dpo.py) reads LLaVA records:
`id`, `image` (a path), `conversations` and `rejected_conversations`, lists of turns with `from`
(human, gpt) and `value`; the human's turns hold `<image>`. The file itself was not seen. Only
conversations of one question are pairs; longer ones are left out.
"""

from typing import Any

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.pieces import chosen_first, foreign, need, only_turns
from r1reward_trainer.data.schema import ImagePath, Record


def rows(record: Record) -> list[Record]:
    """The one pair of a record.

    Raises:
        BadRecord: when a field is missing or the two conversations ask different things.
        LeftOut: for a conversation of several questions.
    """
    question, chosen = _turns(record, "conversations")
    other, rejected = _turns(record, "rejected_conversations")
    if question != other:
        raise foreign("conversations and rejected_conversations begin with different questions")
    path = need(record, "image")
    base = {
        "id": record.get("id"),
        "question": question,
        "images": [ImagePath(path) if isinstance(path, str) else path],
    }
    return chosen_first(base, chosen, rejected)


def _turns(record: Record, name: str) -> tuple[Any, Any]:
    return only_turns(record, name, "from", ("human", "gpt"), "value")


IMPORTER = Importer(
    rows,
    columns=("id", "image", "conversations", "rejected_conversations"),
    required=("image", "conversations", "rejected_conversations"),
    names={"question": "conversations", "images": "image"},
)
