# SPDX-License-Identifier: Apache-2.0
"""VLFeedback (hub: MMInstruction/VLFeedback, vlfeedback_80k.jsonl or Parquet).

Fields by its data card: `id`, `prompt`, `completions` (four, each with `model`, `response` and
`annotations`: a rating from 1 to 5 as text for Helpfulness, Ethical Considerations and Visual
Faithfulness) and `img_path`; the hub's Parquet copy stores the completions as a mapping of lists.
As in the authors' training (repository vlf-silkie/VLFeedback, run_dpo.py), the mean of the aspects
is an answer's score, each two answers with different scores make a pair, and an answer whose
rating is no number makes none. `image` is read as well as `img_path`. Where a row names neither,
its image is that of its id in the folder of the hub's merged_images.zip: the hub's loading script
makes `img_path` of it for every row of the JSONL, whose own fields could not be seen.
"""

from math import isfinite
from typing import Any

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.pieces import fields, foreign, items, need, ranking
from r1reward_trainer.data.schema import ImagePath, LeftOut, Record


def rows(record: Record) -> list[Record]:
    """The pairs of a record, at most six for its four answers.

    Raises:
        BadRecord: when a field is missing or of another kind.
        LeftOut: when no two answers have different scores.
    """
    found = items(need(record, "completions"), "completions")
    completions = [fields(completion, "completions") for completion in found]
    rated = [(c, score(need(c, "annotations"))) for c in completions]
    kept = [(need(c, "response"), value) for c, value in rated if value is not None]
    if len(kept) < 2:
        raise LeftOut("no-ratings")
    image = record.get("image")
    if image is None:
        image = record.get("img_path")
    if image is None:  # as of another machine: found in that folder or beside the file itself
        image = f"/merged_images/{need(record, 'id')}.jpg"
    base = {
        "id": need(record, "id"),
        "question": need(record, "prompt"),
        "images": [ImagePath(image) if isinstance(image, str) else image],
    }
    return ranking(base, [answer for answer, _ in kept], [-value for _, value in kept])


def score(annotations: Any) -> float | None:
    """Mean rating over the aspects, None where one is no number.

    Raises:
        BadRecord: when it is not of the format.
    """
    found = fields(annotations, "annotations")
    if not found:
        raise foreign("annotations is empty")
    ratings = [str(fields(aspect, "annotations").get("Rating")) for aspect in found.values()]
    try:
        mean = sum(map(float, ratings)) / len(ratings)
    except ValueError:
        return None
    return mean if isfinite(mean) else None


IMPORTER = Importer(
    rows,
    columns=("id", "prompt", "completions", "img_path", "image"),
    required=("id", "prompt", "completions"),
    names={"question": "prompt", "images": "img_path"},
)
