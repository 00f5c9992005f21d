# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from r1reward_trainer.data.objects import Folder
from r1reward_trainer.data.sources import find_files, place_of, sources_digest


@pytest.mark.parametrize("rows", ["rows.jsonl", "rows.parquet"])
def test_another_image_beside_rows_is_other_content(tmp_path: Path, rows: str) -> None:
    (tmp_path / rows).write_bytes(b"rows")
    (tmp_path / "pictures").mkdir()

    def digest() -> str:
        return sources_digest(
            find_files("rows", str(tmp_path / rows), lambda uri: Folder(Path(uri)))
        )

    (tmp_path / "pictures/1.PNG").write_bytes(b"one")
    first = digest()
    (tmp_path / "notes.txt").write_bytes(b"no image")
    assert digest() == first
    (tmp_path / "pictures/1.PNG").write_bytes(b"another")
    assert digest() != first


@pytest.mark.parametrize(
    ("uri", "folder", "matches", "others"),
    [
        (
            "s3://data/a/b/*.parquet",
            "s3://data/a/b",
            ["x.parquet", ".parquet"],
            ["c/x.parquet", "x.jsonl", "xparquet"],
        ),
        ("s3://data/*.jsonl", "s3://data", ["x.jsonl"], ["a/x.jsonl"]),
        (
            "s3://data/a/*/part-*.parquet",
            "s3://data/a",
            ["b/part-0.parquet"],
            ["b/c/part-0.parquet", "part-0.parquet"],
        ),
        ("s3://data/a/one.jsonl", "s3://data/a", ["one.jsonl"], ["one.jsonl.gz", "onexjsonl"]),
        ("/data/a/b*.csv", "/data/a/", ["b.csv", "b1.csv"], ["c.csv"]),
        ("rows.jsonl", "", ["rows.jsonl"], ["other.jsonl"]),
        ("s3://data", "s3://data", ["x.jsonl"], []),
        ("s3://data/a/", "s3://data/a", ["x.jsonl", "y.parquet"], ["b/x.jsonl", "z.txt"]),
    ],
)
def test_a_star_matches_within_a_folder(
    uri: str, folder: str, matches: list[str], others: list[str]
) -> None:
    place = place_of(uri)
    assert place.folder == folder
    keys = [*matches, *others]
    assert [key for key in keys if place.pattern.fullmatch(key)] == matches
    assert all(key.startswith(place.start) for key in matches)
