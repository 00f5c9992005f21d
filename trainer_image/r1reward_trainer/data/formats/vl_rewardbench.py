# SPDX-License-Identifier: Apache-2.0
"""The official VL-RewardBench (hub: MMInstruction/VL-RewardBench, Parquet).

Fields by its data card: `id` (not unique), `query`, `response` (two texts), `image` (bytes and
path), `human_ranking` (two numbers). The rank of an answer is the number at its place, 0 is the
better: so its users read it, and for two answers a list of places from best to worst would be the
same list.
"""

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.pieces import foreign, items, need, ranking
from r1reward_trainer.data.schema import Record


def rows(record: Record) -> list[Record]:
    """The pairs of a record, one for two answers.

    Raises:
        BadRecord: when a field is missing or ranking and answers do not fit together.
        LeftOut: when the answers are ranked alike.
    """
    answers = items(need(record, "response"), "response")
    ranks = items(need(record, "human_ranking"), "human_ranking")
    if len(answers) < 2 or len(ranks) != len(answers):
        raise foreign(f"response has {len(answers)} answers and human_ranking {len(ranks)} numbers")
    if not all(isinstance(rank, int) for rank in ranks):
        raise foreign("human_ranking must hold whole numbers")
    base = {
        "id": need(record, "id"),
        "item": need(record, "id"),
        "category": record.get("query_source"),
        "question": need(record, "query"),
        "images": [need(record, "image")],
    }
    return ranking(base, answers, ranks)


IMPORTER = Importer(
    rows,
    columns=("id", "query", "response", "image", "human_ranking", "query_source"),
    required=("id", "query", "response", "image", "human_ranking"),
    names={
        "question": "query",
        "answer1": "response[0]",
        "answer2": "response[1]",
        "images": "image",
    },
)
