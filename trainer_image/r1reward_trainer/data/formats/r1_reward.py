# SPDX-License-Identifier: Apache-2.0
"""The RL rows of the R1-Reward release (hub: yifanzhang114/R1-Reward-RL, Parquet; its scripts read
JSONL).

`message` is a JSON string of a chat: one user turn with the whole prompt as text and an image as
a path. `question` repeats the question, `answer` is a list with `<answer>1</answer>` or
`…2…`. The hub's copy adds `image`, of which its card only says that it is a text; at 165 kB a row
it must be the file itself, while the message's path is that of the authors' machine. The two
answers stand in the prompt alone, below headings that name [Response 1] and [Response 2]; a further
heading names the output format. The release's README shows the prompt cut short and its evaluation
scripts show another number of `#`, so the headings are found by their words; whether the training
prompt ends with the output format could not be verified, and both are read.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.formats.pieces import fields, foreign, items, need
from r1reward_trainer.data.schema import ImagePath, Record, names_file

_FIRST = re.compile(r"^#+[ *]*\[Response 1\][ *]*:?[ *]*\n?", re.MULTILINE)
_SECOND = re.compile(r"^#+[ *]*\[Response 2\][ *]*:?[ *]*\n?", re.MULTILINE)
_OUTPUT = re.compile(r"^#+[ *]*\[?Output Format\b.*", re.MULTILINE)
_GOLD = re.compile(r"\s*<answer>\s*([12])\s*</answer>\s*|\s*([12])\s*")


def rows(record: Record) -> list[Record]:
    """The one pair of a record.

    Raises:
        BadRecord: when the prompt has not each heading once, or the answer is not 1 or 2.
    """
    text, images = _message(need(record, "message"))
    first, second = split_prompt(text)
    beside = _images(record.get("image") or [])
    # Files are what the paths stand for, wherever those pointed to.
    if not images or (beside and all(map(_is_file, beside))):
        images = beside
    return [
        {
            "id": record.get("id"),
            "question": need(record, "question"),
            "answer1": first,
            "answer2": second,
            "gold": _gold(need(record, "answer")),
            "images": images,
            "source": record.get("source"),
        }
    ]


def split_prompt(text: str) -> tuple[str, str]:
    """The two answers in a prompt of the release.

    Raises:
        BadRecord: when a heading is missing or an answer repeats one.
    """
    firsts, seconds = list(_FIRST.finditer(text)), list(_SECOND.finditer(text))
    if len(firsts) != 1 or len(seconds) != 1 or firsts[0].end() > seconds[0].start():
        raise foreign(
            f"message has {len(firsts)} headings [Response 1] and {len(seconds)} [Response 2]; "
            "there must be one of each, in this order"
        )
    ends = [match.start() for match in _OUTPUT.finditer(text) if match.start() > seconds[0].end()]
    end = ends[-1] if ends else len(text)
    first = text[firsts[0].end() : seconds[0].start()]
    return first.strip(), text[seconds[0].end() : end].strip()


def _message(value: Any) -> tuple[str, list[Any]]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise foreign(f"message is no JSON: {error}"[:200]) from error
    texts: list[str] = []
    images: list[Any] = []
    for turn in items(value, "message"):
        content = need(fields(turn, "message"), "content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for part in items(content, "message"):
            match part:
                case {"type": "text", "text": str(text)}:
                    texts.append(text)
                case {"type": "image", "image": str(path)}:
                    images.append(ImagePath(path.removeprefix("file://")))
                case _:
                    raise foreign("message has a part that is neither text nor an image's path")
    return "\n".join(texts), images


def _images(value: Any) -> list[Any]:
    found = value if isinstance(value, list) else [value]
    return [
        ImagePath(image) if isinstance(image, str) and names_file(image) else image
        for image in found
    ]


def _is_file(image: Any) -> bool:
    if isinstance(image, Mapping):
        return image.get("bytes") is not None
    return not isinstance(image, ImagePath)


def _gold(value: Any) -> int:
    only = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    found = _GOLD.fullmatch(str(only)) if isinstance(only, str | int) else None
    if found is None:
        raise foreign(f"answer is {ascii(value)[:80]}, must be ['<answer>1</answer>'] or …2…")
    return int(found[1] or found[2])


IMPORTER = Importer(
    rows,
    columns=("id", "message", "question", "answer", "image", "source"),
    required=("message", "question", "answer"),
)
