# SPDX-License-Identifier: Apache-2.0
"""The good rows become training rows and held-out rows."""

import json
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1reward_api.reasons import Reason
from r1reward_api.resource.job import DataSpec
from r1reward_trainer.data.balance import balanced_gold, with_gold
from r1reward_trainer.data.contamination import HELDOUT, Findings, Screen
from r1reward_trainer.data.rows import Row, RowWriter, open_rows, open_set
from r1reward_trainer.outcome import ConfigurationError

SWAPPED = "~swapped"
"""Ends the id of a training row's copy with the answers in the other order."""


@dataclass(frozen=True)
class Partition:
    """What became of the rows.

    Attributes:
        train, heldout: rows written.
        contamination: figures for the report.
    """

    train: int
    heldout: int
    contamination: dict[str, Any]


def partition(
    spool: Path,
    held: Set[int],
    sets: Mapping[str, Path],
    data: DataSpec,
    train: Path,
    heldout: Path,
    log: Path,
    tick: Callable[[int], None],
) -> tuple[Partition, Screen]:
    """Copies the spool's rows to either side, the order of their answers balanced.

    Args:
        spool: all good rows.
        held: positions of the held-out rows.
        sets: folders of the evaluation sets, by name.
        data: seed, whether training rows are written in both orders, and what happens to those
            that share something with rows that are judged.
        train, heldout: folders to write.
        log: JSONL file to write: training rows and what they share.
        tick: called with the number of rows.

    Returns:
        Figures, and what knows the rows that are judged.

    Raises:
        ConfigurationError: when no training row is left.
    """
    with RowWriter(heldout, Row) as writer:
        rows = open_rows(spool)
        for position in sorted(held):
            gold = balanced_gold(data.seed, HELDOUT, writer.rows)
            writer.write(with_gold(rows[position], gold))
    screen, findings = judged(heldout, sets)

    written = 0
    with RowWriter(train, Row) as writer, log.open("w") as lines:
        for position, row in enumerate(open_rows(spool)):
            tick(position + 1)
            if position in held:
                continue
            if not admit(row, screen, findings, data, lines.write):
                continue
            gold = balanced_gold(data.seed, "train", written)
            written += 1
            writer.write(with_gold(row, gold))
            if data.both_orders:
                writer.write(replace(with_gold(row, 3 - gold), id=f"{row.id}{SWAPPED}"))
    if written == 0:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            "data.contamination Remove leaves no training row: all share an image or a text with "
            "held-out rows or evaluation sets; give other data, or set it to Report",
        )
    return Partition(writer.rows, len(held), findings.figures()), screen


def judged(heldout: Path, sets: Mapping[str, Path]) -> tuple[Screen, Findings]:
    """What knows the rows that are judged, and the counts of what shares something with them."""
    folders = {name: open_set(folder) for name, folder in sets.items()}
    everything: dict[str, Iterable[Row]] = {HELDOUT: open_rows(heldout), **folders}
    screen, counts = Screen(), dict.fromkeys(everything, 0)
    for name, rows in everything.items():
        for row in rows:
            screen.add(name, row)
            counts[name] += 1
    return screen, Findings(counts)


def admit(
    row: Row, screen: Screen, findings: Findings, data: DataSpec, write: Callable[[str], object]
) -> bool:
    """Notes what a row shares with rows that are judged; False when it must be left out."""
    found = findings.note(row, screen.check(row))
    for entry in found:
        write(json.dumps(entry) + "\n")
    return not found or data.contamination == "Report"
