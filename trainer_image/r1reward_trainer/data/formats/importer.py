# SPDX-License-Identifier: Apache-2.0
"""What an importer is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from r1reward_trainer.data.schema import Record


@dataclass(frozen=True)
class Importer:
    """How records of one format become records of the one schema.

    Attributes:
        rows: one record's preferences; a ranking of n answers has several. Raises BadRecord for
            one that is not of the format, LeftOut for one that holds no preference.
        columns: what is read of a table; all else stays on the disk.
        required: columns without which no row of a table can be read.
        names_rows: whether a row without an id is named after its place.
        names: our name to the record's, where a message should say both.
    """

    rows: Callable[[Record], list[Record]]
    columns: tuple[str, ...]
    required: tuple[str, ...]
    names_rows: bool = True
    names: Mapping[str, str] = field(default_factory=dict)
