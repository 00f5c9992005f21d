# SPDX-License-Identifier: Apache-2.0
"""WildVision-Battle (hub: WildVision/wildvision-battle, Parquet).

Fields by the data card of the arena's data: `question_id`, `model_a`, `model_b`,
`conversation_a` and `conversation_b` (turns with `role` and `content`), `image` (bytes and path),
`winner`, `language`, `turn`. As in the arena's software, `winner` is model_a, model_b, tie or
tie (bothbad). Battles without a winner and of several turns are left out: in the latter the two
models answered different conversations.
"""

from typing import Any

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.pieces import foreign, need, only_turns
from r1reward_trainer.data.schema import ImagePath, LeftOut, Record

_GOLD = {"model_a": 1, "model_b": 2}
_TIES = ("tie", "tie (bothbad)")


def rows(record: Record) -> list[Record]:
    """The one pair of a record.

    Raises:
        BadRecord: when a field is missing or of another kind.
        LeftOut: for a tie, a battle of several turns, and one without an image.
    """
    winner = need(record, "winner")
    if winner in _TIES:
        raise LeftOut("tie")
    if not isinstance(winner, str) or winner not in _GOLD:
        raise foreign(f"winner is {ascii(winner)[:80]}, must be model_a, model_b or a tie")
    question, first = _turns(record, "conversation_a")
    other, second = _turns(record, "conversation_b")
    if question != other:
        raise foreign("conversation_a and conversation_b begin with different questions")
    image = record.get("image")
    if image is None:
        raise LeftOut("no-image")
    return [
        {
            "id": need(record, "question_id"),
            "question": question,
            "answer1": first,
            "answer2": second,
            "gold": _GOLD[winner],
            "images": [ImagePath(image) if isinstance(image, str) else image],
            "category": record.get("language"),
        }
    ]


def _turns(record: Record, name: str) -> tuple[Any, Any]:
    return only_turns(record, name, "role", ("user", "assistant"), "content")


IMPORTER = Importer(
    rows,
    columns=("question_id", "conversation_a", "conversation_b", "image", "winner", "language"),
    required=("question_id", "conversation_a", "conversation_b", "image", "winner"),
    names={"id": "question_id", "question": "conversation_a", "images": "image"},
)
