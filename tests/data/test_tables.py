"""Labelled rows, and every way a file of them can be wrong."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.data.tables import read_rows
from bothways.errors import UserError

ROWS = [{"text": "no, light", "label": "hardware"}, {"text": 'a "quoted"\nline', "label": "billing"}]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        '﻿text,label\n"no, light",hardware\n"a ""quoted""\nline",billing\n', encoding="utf-8"
    )
    (tmp_path / "a.jsonl").write_text(
        '{"text": "no, light", "label": "hardware"}\n\n{"text": "a \\"quoted\\"\\nline", "label": "billing"}\n'
    )
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert [dict(row.values) for row in read_rows(tmp_path / f"a.{suffix}", ["text", "label"])] == ROWS
    assert [dict(row.values) for row in read_rows(ROWS)] == ROWS
    assert read_rows(tmp_path / "a.csv")[1].source.endswith("a.csv:3")


BAD = {
    "empty.csv": (b"", "the file is empty"),
    "header.csv": (b"text,label\n", "no rows"),
    "binary.csv": (b"text,label\nab\0c,x\n", r"binary\.csv:2: a NUL byte"),
    "bytes.csv": (b"text,label\nok,x\ncaf\xe9,x\n", r"bytes\.csv:3: byte 4 of the line, 0xe9, is not UTF-8"),
    "fields.csv": (b"text,label\na,b,c\n", r"fields\.csv:2: 3 fields, but the header has 2: text, label"),
    "column.csv": (
        b"texts,label\na,b\n",
        r"column\.csv:2: no column 'text', did you mean 'texts'\?; columns present: texts, label",
    ),
    "broken.jsonl": (b'{"text": "a"}\n{"text": \n', r"broken\.jsonl:2: not valid JSON"),
    "list.jsonl": (b"[1]\n", r"list\.jsonl:1: expected a JSON object, found list"),
    "no.parquet": (b"PAR1 not really", "not a readable parquet file"),
    "twice.csv": (b"text,text\na,b\n", r"twice\.csv:1: the column 'text' stands twice"),
    "quote.tsv": (
        b'text\tlabel\nfoo\tneg\n"hello\nthere"\tpos\n',
        r"quote\.tsv:3: 1 fields, .*; in \.tsv quotes hold no tabs and no line ends: save the table as \.csv",
    ),
    "torn.tsv": (b'label\ttext\nx\t"hello\nthere"\n', r"torn\.tsv:2: a quoted field is not closed; in \.tsv"),
    "keys.jsonl": (b'{"text": "a", "text": "b"}\n', r"keys\.jsonl:1: .*the key 'text' stands twice"),
    "array.jsonl": (b'[\n{"text": "a"}\n]\n', r"array\.jsonl:1: .*an array\? name the file \.json"),
    "wide.csv": (b"\xff\xfet\0e\0", r"wide\.csv: no rows"),
    "blanks.csv": (b"text, text\na,b\n", r"blanks\.csv:1: the column 'text' stands twice .*a name of its own"),
    "prose.txt": (b"A line of words.\nAnd another one\n", r"prose\.txt: \.txt suffix; .* or format says what it is"),
    "open.csv": (b'text,label\na,x\nb,"y\nc,x\n', r"open\.csv:3: not valid csv"),
    "deep.jsonl": (b"[" * 100_000 + b"\n", r"deep\.jsonl:1: not"),
    "digits.jsonl": (b'{"text": ' + b"9" * 5000 + b"}\n", r"digits\.jsonl:1: not readable JSON"),
    "rows.xlsx": (b"x", r"\.xlsx suffix"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / name, ["text"])


def test_missing_files_and_empty_values(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_rows(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_rows(tmp_path)
    row = read_rows([{"text": " ", "n": 3}])[0]
    with pytest.raises(UserError, match="row 1: column 'text' is empty"):
        row.text("text")
    with pytest.raises(UserError, match="is 3, not a text"):
        row.text("n")
    with pytest.raises(UserError, match="half a surrogate pair"):
        read_rows([{"text": "a\ud800"}])[0].text("text")
    with pytest.raises(UserError, match="row 1: expected a dictionary of columns, found str"):
        read_rows(["x"])  # type: ignore[list-item]
