# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1reward_trainer.data import files
from r1reward_trainer.data.schema import BadRecord
from r1reward_trainer.outcome import ConfigurationError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(path: Path, columns: tuple[str, ...] = ("a",)) -> list[tuple[int, Any]]:
    found = list(files.read(path, path.name, columns, columns[:1]))
    return [(n, r.reason.value if isinstance(r, BadRecord) else r) for n, r in found]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5),
    st.sampled_from([None, 1, "\t"]),
    st.integers(1, 40),
)
def test_a_json_list_is_read_object_by_object_in_whatever_pieces(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[Any],
    indent: int | str | None,
    chunk: int,
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", chunk)
        assert read(path) == list(enumerate(records, 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '[{"a": 1}',
        '[{"a": 1} {"a": 2}]',
        "[nope]",
        '["\x00',
        "[{}]\n[{}]",
        "[{}]}",
        "[]]",
    ],
)
def test_a_file_that_is_no_json_list_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"x\.json cannot be read as a JSON list"):
        read(path)


def test_what_is_no_object_in_a_json_list_is_a_bad_record(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"a": 1}, 1234567, {"a": 2}]')
    assert read(tmp_path / "x.json") == [(1, {"a": 1}), (2, "not-json"), (3, {"a": 2})]


@pytest.mark.parametrize("separator", [", ", " \n\t,\r\n  "])
def test_small_objects_behind_a_large_one_are_all_read(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "x.json"
    records = [{"a": "é" * (2 << 20)}, *({"a": n} for n in range(100_000))]
    path.write_text(f"[{separator.join(json.dumps(r, ensure_ascii=False) for r in records)}]")
    assert [record for _, record in files.read(path, path.name, (), ())] == records


def test_csv_is_read_by_its_header_with_the_line_of_each_record(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('\ufeffa,b\n1,"two\nlines"\n2,\n3,4,5\n6,7\n', encoding="utf-8")
    assert read(path) == [
        (3, {"a": "1", "b": "two\nlines"}),
        (4, {"a": "2"}),
        (5, "not-csv"),
        (6, {"a": "6", "b": "7"}),
    ]


def test_bytes_that_are_no_utf8_cost_one_record_of_csv_and_in_its_header_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n1,caf\xe9\n2,caf\xc3\xa9\n")
    assert read(path) == [(2, "not-csv"), (3, {"a": "2", "b": "café"})]
    path.write_bytes("a,é\n1,2\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="as CSV in UTF-8"):
        read(path)


def test_an_empty_line_of_jsonl_may_be_a_lost_record_but_not_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n \n{"a": 2}\n\n\n')
    assert read(path) == [(1, {"a": 1}), (2, "not-json"), (3, "not-json"), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'a,b\n1,2\n3,"4\n5,6\n7,8\n',
            "lines 3 to 5: unexpected end of data; is a quote in line 3",
        ),
        ('a,b\n\n1,"2\n3,4\n', "lines 3 to 4: unexpected end"),
        ('a,b\n1,"2"x\n3,"4\n5,6\n', "lines 3 to 4: unexpected end"),
        ('a,b\n1,"2\n5,6\n7,"8"\n9,10\n', "lines 2 to 4: .*is a quote in line 2 not closed"),
        ("a,b,a\n1,2,3\n", "several columns 'a'"),
        ('"a\n', "cannot be read as CSV with a header"),
    ],
)
def test_a_csv_in_which_rows_would_get_lost_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=rf"^x\.csv .*{words}"):
        read(tmp_path / "x.csv")


def test_a_broken_line_of_csv_costs_that_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a,b\n1,"2"x\n\n3\n4,"5')
    assert read(tmp_path / "x.csv") == [(2, "not-csv"), (4, {"a": "3"}), (5, "not-csv")]


def test_the_rows_of_a_long_table_are_numbered_as_they_stand(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(1, 301)}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet", ("a",)) == [(n, {"a": n}) for n in range(1, 301)]


def test_of_a_table_only_what_is_needed_is_read(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "big": [b"x" * 100, b"y"], "s": [{"bytes": b"i"}, None]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet", ("a", "s")) == [
        (1, {"a": 1, "s": {"bytes": b"i"}}),
        (2, {"a": 2, "s": None}),
    ]
    assert read(tmp_path / "x.parquet", ("question",)) == [
        (1, "missing-field"),
        (2, "missing-field"),
    ]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**31 - 1], pa.date32()),
        pa.array([9 * 10**18], pa.timestamp("us")),
        pa.StructArray.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["path", "path"]),
    ],
    ids=["date", "time", "struct"],
)
def test_a_table_of_values_that_python_cannot_hold_is_refused_with_its_name(
    tmp_path: Path, column: pa.Array
) -> None:
    pq.write_table(pa.table({"a": column}), tmp_path / "x.parquet")
    with pytest.raises(ConfigurationError, match=r"x\.parquet cannot be read as Parquet"):
        read(tmp_path / "x.parquet")


def test_the_name_of_a_column_forges_no_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"q\n2026-01-01 ERROR r1: forged\x1b[2J": ["x"]}), path)
    ((_, fault),) = files.read(path, "rows.parquet", ("a",), ("a",))
    assert isinstance(fault, BadRecord)
    assert str(fault).isprintable()
    assert "ERROR r1: forged" in str(fault)
