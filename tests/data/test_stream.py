"""Tables read row by row: every row or the reason why not, from any place, in any format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bothways.data.stream import RowStream
from bothways.data.tables import BadRow, Row
from bothways.errors import UserError

ROWS = [{"id": n, "text": f"line {n}\nand more" if n % 3 else f"“quoted”, {n}"} for n in range(25)]


def written(folder: Path) -> list[Path]:
    """The same rows in every format."""
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "t.parquet", row_group_size=7)
    jsonl = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "t.jsonl").write_text(jsonl, encoding="utf-8")
    (folder / "t.jsonl.gz").write_bytes(gzip.compress(jsonl.encode()))
    (folder / "t.jsonl.zst").write_bytes(zstandard.compress(jsonl.encode()))
    for name, comma, quote in (("t.csv", ",", ""), ("t.tsv", "\t", '"')):  # quotes around a .tsv's header: like csv
        lines = [f'{row["id"]}{comma}"{row["text"]}"' for row in ROWS]
        header = f"{quote}id{quote}{comma}{quote}text{quote}"
        (folder / name).write_text("\ufeff" + "\n".join([header, *lines]), encoding="utf-8")
    return [folder / name for name in ("t.parquet", "t.jsonl", "t.jsonl.gz", "t.jsonl.zst", "t.csv", "t.tsv")]


@pytest.mark.parametrize("skip", [0, 1, 6, 7, 8, 24, 25, 30])
def test_every_format_gives_the_same_rows_from_any_place(skip: int, tmp_path: Path) -> None:
    for path in written(tmp_path):
        stream = RowStream(path)
        rows = list(stream.rows(skip))
        texts = [row.values["text"] for row in rows if isinstance(row, Row)]
        assert texts == [row["text"] for row in ROWS[skip:]], path.name
        assert stream.columns == ["id", "text"]
        assert stream.count() >= len(ROWS)
        if path.suffix == ".parquet" or "jsonl" in path.name:
            assert stream.count() == len(ROWS)
    assert [row.source for row in RowStream(tmp_path / "t.parquet").rows(23)] == [
        f"{tmp_path / 't.parquet'}: row 24",
        f"{tmp_path / 't.parquet'}: row 25",
    ]


def test_what_cannot_be_read_is_told_and_what_follows_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'[]\n{"t": "1"}\n{"t": \n{"t": "\\ud800"}\n{"t": "\xff"}\n{"t": "a\x00b"}\n\n{"t": "2"}\n'
    )
    (tmp_path / "a.csv").write_bytes(b't,u\n1,2\n1,2,3\n"x" y,2\n\xff,2\n3,4\n')
    (tmp_path / "a.txt").write_bytes(b"one\r\n\xff\ntwo")

    def told(name: str) -> list[str | tuple[str, str]]:
        return [
            (row.source.removeprefix(str(tmp_path / name)), row.reason)
            if isinstance(row, BadRow)
            else next(iter(row.values.values()))
            for row in RowStream(tmp_path / name).rows()
        ]

    assert told("a.jsonl") == [
        (":1", "expected a JSON object, found list"),
        "1",
        (":3", "not valid JSON: Expecting value at character 8"),
        (":4", "holds half a surrogate pair, which is no text"),
        (":5", "byte 8 of the line, 0xff, is not UTF-8; encoding says what it is: cp1252, latin-1 or gb18030, say"),
        (":6", "a NUL byte; this is a binary file, not text"),
        "2",
    ]
    assert told("a.csv") == [
        "1",
        (":3", "3 fields, but the header has 2: t, u"),
        (":4", "not valid csv: ',' expected after '\"' (up to line 4); a quote that opens a field must close it"),
        (":5", "byte 1 of the line, 0xff, is not UTF-8; encoding says what it is: cp1252, latin-1 or gb18030, say"),
        "3",
    ]
    assert told("a.txt") == [
        "one",
        (":2", "byte 1 of the line, 0xff, is not UTF-8; encoding says what it is: cp1252, latin-1 or gb18030, say"),
        "two",
    ]


def test_types_are_the_files_or_those_of_the_first_rows(tmp_path: Path) -> None:
    for path in written(tmp_path):
        expected = pa.string() if path.suffix in (".csv", ".tsv") else pa.int64()
        assert RowStream(path).schema() == pa.schema([("id", expected), ("text", pa.string())]), path.name
    lines = '{"a": 1, "b": null, "c": 1, "d": true, "e": {}}\n{"a": "x", "c": 2.5, "f": [1]}\n'
    (tmp_path / "mixed.jsonl").write_text(lines)
    schema = RowStream(tmp_path / "mixed.jsonl").schema()
    text, number, truth = pa.string(), pa.float64(), pa.bool_()
    assert {field.name: field.type for field in schema} == {
        "a": text,
        "b": text,
        "c": number,
        "d": truth,
        "e": text,
        "f": text,
    }
    assert [field.name for field in schema if field.metadata] == ["a", "e", "f"], "as JSON"


def test_what_is_no_table(tmp_path: Path) -> None:
    for name, content, complaint in (
        ("none.csv", None, "no such file"),
        ("a.xlsx", b"x", r"expected a table that ends in one of \.parquet"),
        ("empty.jsonl", b"", "no rows"),
        ("header.csv", b"a,b\n", "no rows"),
        ("twice.csv", b"a,a\n1,2\n", "the column 'a' stands twice in the header"),
        ("broken.parquet", b"PAR1xxxxPAR1", "not a readable parquet file"),
        ("all-bad.jsonl", b"x\n[]\n", "no row of it can be read: not valid JSON"),
        ("cut.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 4000)[:-20], "cannot be read"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}:?.*{complaint}"):
            list(RowStream(path).rows())
