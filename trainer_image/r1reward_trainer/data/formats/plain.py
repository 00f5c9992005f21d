# SPDX-License-Identifier: Apache-2.0
"""Rows of the one schema, or with columns of other names for the same things."""

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import Columns
from r1reward_api.wire.rows import ANNOTATION_COLUMNS, PREFERENCE_COLUMNS, SET_COLUMNS
from r1reward_trainer.data.formats.importer import Importer
from r1reward_trainer.data.schema import Record
from r1reward_trainer.outcome import ConfigurationError

_OPTIONAL = ("source", "item", "category")

OWN = Importer(
    rows=lambda record: [record],
    columns=(*PREFERENCE_COLUMNS, *ANNOTATION_COLUMNS, *SET_COLUMNS),
    required=tuple(name for name in PREFERENCE_COLUMNS if name not in _OPTIONAL),
    names_rows=False,
)
"""Records as they are."""


def mapped(columns: Columns) -> Importer:
    """Records in which the same things have other names.

    `chosen` and `rejected` become `answer1` and `answer2` with gold 1. A row without an id gets
    one from its place.

    Raises:
        ConfigurationError: when the mapping contradicts itself.
    """
    given = {name: value for name, value in columns if value is not None}
    ranked = "chosen" in given
    both = ranked and {"answer1", "answer2", "gold"} & given.keys()
    if both or ranked != ("rejected" in given):
        raise ConfigurationError(
            Reason.INVALID_SPEC,
            "columns: give either chosen and rejected, or answer1, answer2 and gold",
        )
    answers = ("chosen", "rejected") if ranked else ("answer1", "answer2", "gold")
    needed = {name: given.get(name, name) for name in ("question", *answers, "images")}
    wanted = {**needed, **{name: given.get(name, name) for name in ("id", *_OPTIONAL)}}

    def rows(record: Record) -> list[Record]:
        named = {ours: record[theirs] for ours, theirs in wanted.items() if theirs in record}
        if ranked:
            named["gold"] = 1
            for ours, theirs in (("answer1", "chosen"), ("answer2", "rejected")):
                if theirs in named:
                    named[ours] = named.pop(theirs)
        return [named]

    names = {"answer1": needed["chosen"], "answer2": needed["rejected"]} if ranked else {}
    return Importer(
        rows=rows,
        columns=tuple(dict.fromkeys(wanted.values())),
        required=tuple(dict.fromkeys(needed.values())),
        names={**{o: t for o, t in wanted.items() if o != t}, **names},
    )
