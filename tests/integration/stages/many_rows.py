# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.integration.stages.many_rows ROWS FOLDER`: reads, splits and compares so many
synthetic rows as prepare does, and prints the process's peak of memory as JSON."""

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from r1reward_api.resource.job import DataSpec
from r1reward_trainer.data.formats.registry import importer_of
from r1reward_trainer.data.intake import Intake, take_in
from r1reward_trainer.data.objects import Folder
from r1reward_trainer.data.partition import Partition, partition
from r1reward_trainer.data.rows import SPOOL_ROWS_PER_GROUP, Row, RowWriter
from r1reward_trainer.data.schema import parse_row
from r1reward_trainer.data.sources import Source, find_files
from r1reward_trainer.data.split import held_out_rows

ROWS_AN_IMAGE = 2
_WORDS = [f"word{n}" for n in range(1000)]


def write(path: Path, rows: int) -> None:
    """JSONL with so many rows of about 0.8 KB, each image in two of them."""
    random, picture = np.random.default_rng(0), ""
    with path.open("w") as file:
        for number in range(rows):
            if number % ROWS_AN_IMAGE == 0:
                image = Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8))
                buffer = io.BytesIO()
                image.save(buffer, "PNG", compress_level=0)
                picture = base64.b64encode(buffer.getvalue()).decode()
            texts = [" ".join(_WORDS[n] for n in random.integers(0, 1000, 30)) for _ in range(2)]
            record = {
                "id": f"synthetic-{number:09d}",
                "question": "Which of the two is the better description?",
                "answer1": texts[0],
                "answer2": texts[1],
                "gold": 1 + number % 2,
                "images": [picture],
            }
            file.write(json.dumps(record) + "\n")


def prepare(folder: Path) -> tuple[Intake, Partition]:
    """The way of the rows through prepare, without storage and model."""
    source = Source(
        find_files("rows", f"{folder}/rows.jsonl", lambda uri: Folder(Path(uri))),
        importer_of("Plain"),
    )
    data = DataSpec.model_validate({"preferences": [{"uri": "s3://rows/x.jsonl"}]})
    with RowWriter(folder / "spool", Row, rows_per_group=SPOOL_ROWS_PER_GROUP) as spool:
        intake = take_in(
            [source],
            lambda record, media: parse_row(record, 1, media),
            lambda row: None,
            spool.write,
            folder / "bad-rows.jsonl",
            folder,
            None,
            lambda rows: None,
        )
    held = held_out_rows(intake.images, data.holdout.fraction, data.holdout.seed)
    done, _ = partition(
        folder / "spool",
        held,
        {},
        data,
        folder / "train",
        folder / "heldout",
        folder / "contamination.jsonl",
        lambda rows: None,
    )
    return intake, done


def peak_bytes() -> int:
    """Of this program alone: getrusage's maximum has what its parent held before it began."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)


def main() -> None:
    """Prints rows, rows of either side and the peak in bytes."""
    rows, folder = int(sys.argv[1]), Path(sys.argv[2])
    write(folder / "rows.jsonl", rows)
    intake, done = prepare(folder)
    figures = intake.quality.figures()
    found = {
        "rows": figures["rows"],
        "badRows": figures["badRows"],
        "train": done.train,
        "heldout": done.heldout,
        "fileBytes": (folder / "rows.jsonl").stat().st_size,
        "peakBytes": peak_bytes(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
