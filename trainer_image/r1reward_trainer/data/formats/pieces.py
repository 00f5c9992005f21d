# SPDX-License-Identifier: Apache-2.0
"""Pieces that several formats share."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from r1reward_trainer.data.schema import BadReason, BadRecord, LeftOut, Record

_PLACEHOLDERS = ("<image>", "<video>")
_PLACEHOLDER_LENGTH = 7
_SHOWN_CHARACTERS = 200


def need(record: Record, name: str) -> Any:
    """The value of a field.

    Raises:
        BadRecord: when it is missing or null.
    """
    value = record.get(name)
    if value is None:
        there = ascii(", ".join(map(str, record)))[:_SHOWN_CHARACTERS]
        raise BadRecord(BadReason.MISSING_FIELD, f"{name} is missing; there are {there}")
    return value


def foreign(detail: str) -> BadRecord:
    """For a record that is not of the format.

    Args:
        detail: the field and what is wrong with it.
    """
    return BadRecord(BadReason.NOT_THIS_FORMAT, detail)


def items(value: Any, name: str) -> list[Any]:
    """A list, also when the data set's own types made it a mapping of lists.

    Raises:
        BadRecord: when it is something else.
    """
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, Mapping) and all(isinstance(v, list | tuple) for v in value.values()):
        if len({len(v) for v in value.values()}) > 1:
            raise foreign(f"{name} has lists of different lengths")
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    raise foreign(f"{name} is {type(value).__name__}, must be a list")


def fields(value: Any, name: str) -> Mapping[str, Any]:
    """A mapping.

    Raises:
        BadRecord: when it is something else.
    """
    if not isinstance(value, Mapping):
        raise foreign(f"{name} is {type(value).__name__}, must be an object")
    return value


def without_placeholder(text: Any) -> Any:
    """A question without the `<image>` that some data sets write into it."""
    if not isinstance(text, str):
        return text
    # No regular expression: from each of many spaces it would look for a placeholder after them.
    if (begin := text.lstrip()).startswith(_PLACEHOLDERS):
        text = begin[_PLACEHOLDER_LENGTH:].lstrip()
    if (end := text.rstrip()).endswith(_PLACEHOLDERS):
        text = end[:-_PLACEHOLDER_LENGTH].rstrip()
    return text


def only_turns(
    record: Record, name: str, who: str, roles: tuple[str, str], what: str
) -> tuple[Any, Any]:
    """Question and answer of a conversation that has no more.

    Args:
        record: of the file.
        name: field with the conversation, a list of turns.
        who: a turn's field with its role.
        roles: of question and answer.
        what: a turn's field with its text.

    Raises:
        BadRecord: when it is no such conversation.
        LeftOut: when it goes on.
    """
    turns = [fields(turn, name) for turn in items(need(record, name), name)]
    if tuple(turn.get(who) for turn in turns[:2]) != roles:
        raise foreign(f"{name} does not begin with turns of {roles[0]} and {roles[1]}")
    if len(turns) > 2:
        raise LeftOut("several-turns")
    return without_placeholder(need(turns[0], what)), need(turns[1], what)


def better_pairs(ranks: Sequence[float]) -> list[tuple[int, int]]:
    """Positions of the better and the worse of each two answers; equals make no pair.

    Args:
        ranks: of the answers, the smaller the better.
    """
    return [
        (i, j) if ranks[i] < ranks[j] else (j, i)
        for i, j in combinations(range(len(ranks)), 2)
        if ranks[i] != ranks[j]
    ]


def ranking(base: Record, answers: Sequence[Any], ranks: Sequence[float]) -> list[Record]:
    """The pairs of a ranking; the first answer of a pair is the one that stands first.

    Args:
        base: what they share: id, question, images, …
        answers: the answers.
        ranks: of the answers, the smaller the better.

    Raises:
        LeftOut: when no two of them differ.
    """
    pairs = better_pairs(ranks)
    if not pairs:
        raise LeftOut("tie")
    records = []
    for better, worse in pairs:
        first, second = sorted((better, worse))
        record = {
            **base,
            "answer1": answers[first],
            "answer2": answers[second],
            "gold": 1 if better == first else 2,
        }
        if len(answers) > 2 and base.get("id") is not None:
            record["id"] = f"{base['id']}-{first}-{second}"
        records.append(record)
    return records


def chosen_first(base: Record, chosen: Any, rejected: Any) -> list[Record]:
    """The one pair of a record that says which answer was chosen."""
    return [{**base, "answer1": chosen, "answer2": rejected, "gold": 1}]
