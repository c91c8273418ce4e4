"""Tables as they are in the wild: what spreadsheets, R, Spark and shared tasks leave."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.data.stream import RowStream
from bothways.data.tables import BadRow, TableOptions, read_rows, read_table
from bothways.errors import UserError
from bothways.text.corpus import CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.sources import resolve_sources


def rows_of(path: Path, content: bytes | str) -> tuple[list[dict[str, object]], list[str]]:
    """The rows of a file, which the bulk reader must give as well, and what was said of it."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    said: list[str] = []
    rows = [dict(row.values) for row in read_rows(path, options=TableOptions(say=said.append))]
    stream = RowStream(path)
    assert [dict(row.values) for row in stream.rows() if not isinstance(row, BadRow)] == rows
    assert [f"{path}: {remark}" for remark in stream.remarks] == said
    return rows, [remark.removeprefix(f"{path}: ") for remark in said]


def test_a_quote_is_a_character_in_tsv(tmp_path: Path) -> None:
    glue = 's\tlabel\n"He left early\t1\nfine so far\t0\nall ended well"\t1\nthe end\t0\n'
    rows, _ = rows_of(tmp_path / "a.tsv", glue)
    assert [row["s"] for row in rows] == ['"He left early', "fine so far", 'all ended well"', "the end"]
    rows, _ = rows_of(tmp_path / "b.tsv", 's\tlabel\n"Second line\t1\nThird "word" here\t0\n"A whole one."\t0\n')
    assert [row["s"] for row in rows] == ['"Second line', 'Third "word" here', '"A whole one."']
    report = CorpusReport()
    documents = read_documents(resolve_sources([str(tmp_path / "a.tsv")]), CorpusOptions(text_column="s"), report)
    assert next(document.text for document in documents) == '"He left early'


def test_a_tsv_that_was_written_with_quotes_is_read_as_it_was_written(tmp_path: Path) -> None:
    texts = ['a "word" here', '"begins', '"all"', "plain", 'ends"', '"']
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        file = io.StringIO()
        csv.writer(file, delimiter="\t", quoting=quoting).writerows([["s", "n"], *([text, "1"] for text in texts)])
        rows, said = rows_of(tmp_path / "a.tsv", file.getvalue())
        assert [row["s"] for row in rows] == texts
        assert bool(said) == (quoting == csv.QUOTE_ALL)


def test_real_tsv_files_with_and_without_quotes(shared_data: Path) -> None:
    """Python's csv module, told by hand which of the files has quotes, is the oracle."""
    quoted, bare = csv.QUOTE_MINIMAL, csv.QUOTE_NONE
    for name, quoting in (
        ("rte/train", quoted),
        ("ag-news/test", quoted),
        ("sst2/dev", bare),
        ("codah/full_data", bare),
    ):
        path = shared_data / f"{name}.tsv"
        with path.open(encoding="utf-8", newline="") as file:
            expected = list(csv.reader(file, delimiter="\t", quoting=quoting))[1:]
        assert [list(row.values.values()) for row in read_rows(path)] == expected, name


EXPECTED = [{"text": "red, light", "label": "x"}, {"text": "b", "label": "y"}]
WILD = {
    "blanks": (' text ,label \n"red, light",x\nb,y\n', []),
    "trailing": ('text,label,,\n"red, light",x,,\nb,y\n', []),
    "rows above": (',,\n\ntext,label\n"red, light",x\nb,y,\n', []),
    "semicolons": ("text;label\nred, light;x\nb;y\n", ["fields are parted by semicolons"]),
    "tabs": ("text\tlabel\nred, light\tx\nb\ty\n", ["fields are parted by tabs"]),
    "bars": ("text|label\nred, light|x\nb|y\n", ["fields are parted by bars"]),
    "excel": ('sep=;\ntext;label\n"red, light";x\nb;y\n', []),
    "returns": ('text,label\r"red, light",x\rb,y\r', []),
    "dos": ('\ufefftext,label\r\n"red, light",x\r\n\r\nb,y\r\n', []),
    "comments": (
        '# exported today\n# by us\ntext,label\n"red, light",x\nb,y\n',
        ["2 comment lines before the header left out"],
    ),
}


@pytest.mark.parametrize("name", WILD)
def test_csv_as_spreadsheets_leave_it(name: str, tmp_path: Path) -> None:
    content, remarks = WILD[name]
    assert rows_of(tmp_path / "a.csv", content) == (EXPECTED, remarks)


def test_what_looks_like_a_comment_or_separator_and_is_none(tmp_path: Path) -> None:
    rows, said = rows_of(tmp_path / "a.csv", "#id,text\n1,a;b\n")
    assert (rows, said) == ([{"#id": "1", "text": "a;b"}], [])
    rows, _ = rows_of(tmp_path / "b.csv", "text,n\n# no comment,1\n")
    assert rows == [{"text": "# no comment", "n": "1"}]
    rows, _ = rows_of(tmp_path / "c.jsonl", '{"text": "a"}\r{"text": "b"}\r')
    assert rows == [{"text": "a"}, {"text": "b"}]


def test_lines_that_end_in_returns_are_numbered_wherever_the_blocks_end(tmp_path: Path) -> None:
    lines = [f"{number},{'x' * (number % 97)}" for number in range(6000)]
    for end in ("\r", "\n", "\r\n"):
        (tmp_path / "a.csv").write_bytes(end.join(["n,x", *lines, "bad"]).encode())
        rows = read_table(tmp_path / "a.csv")
        assert [row.values["n"] for row in rows[:-1]] == [str(number) for number in range(6000)]  # type: ignore[union-attr]
        assert rows[-1] == BadRow(f"{tmp_path / 'a.csv'}:6002", "1 fields, but the header has 2: n, x")


def test_the_text_column_must_not_stand_twice_even_in_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,n,text,text\n1,2,a,b\n")
    report = CorpusReport()
    options = CorpusOptions(skip_bad=True)
    assert not list(read_documents(resolve_sources([str(tmp_path / "a.csv")]), options, report))
    assert report.remarks == {str(tmp_path / "a.csv"): {"repeated column": (1, 1)}}
    (tmp_path / "a.csv").write_text("n;n;text\n1;2;a\n")
    report = CorpusReport()
    documents = list(read_documents(resolve_sources([str(tmp_path / "a.csv")]), options, report))
    assert [document.text for document in documents] == ["a"]
    assert report.remarks == {str(tmp_path / "a.csv"): {"fields are parted by semicolons": (0, 0)}}


def test_parquet_times_that_python_has_no_type_for_do_not_matter(tmp_path: Path) -> None:
    """The texts of the times are numpy's."""
    nanoseconds = pa.array([1700000000123456789, None], pa.timestamp("ns"))
    columns = {
        "text": ["a", "b"],
        "ns": nanoseconds,
        "zone": nanoseconds.cast(pa.timestamp("ns", "Europe/Oslo")),
        "day": pa.array([2**31 - 1, 0], pa.date32()),
        "long": pa.array([2**62, 1], pa.duration("s")),
        "clock": pa.array([1, 0], pa.time64("ns")),
        "list": pa.array([[1700000000123456789], None], pa.list_(pa.timestamp("ns"))),
        "object": pa.array([{"at": 1}, {"at": None}], pa.struct([("at", pa.timestamp("ns"))])),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second = (row.values for row in read_rows(tmp_path / "a.parquet"))
    assert first["ns"] == str(np.datetime64(1700000000123456789, "ns")) == "2023-11-14T22:13:20.123456789"
    assert first["zone"] == "2023-11-14T22:13:20.123456789+00:00"
    assert first["day"] == str(np.datetime64(2**31 - 1, "D")) == "5881580-07-11"
    assert first["long"] == f"{2**62} seconds"
    assert first["clock"] == "00:00:00.000000001"
    assert first["list"] == ["2023-11-14T22:13:20.123456789"]
    assert first["object"] == {"at": "1970-01-01T00:00:00.000000001"}
    assert (second["text"], second["ns"], second["list"], second["object"]) == ("b", None, None, {"at": None})
    assert [row.values for row in RowStream(tmp_path / "a.parquet").rows()] == [first, second]
    pq.write_table(pa.table({"text": ["a"], "at": pa.array([4 * 10**14], pa.timestamp("s"))}), tmp_path / "b.parquet")
    assert str(read_rows(tmp_path / "b.parquet")[0].values["at"]).startswith("12677465-05-27T15:06:40")


def test_parquet_with_latin_1_deep_in_a_column_loses_only_those_rows(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"good"]).buffers())
    table = pa.table({"text": ["a", "b"], "list": pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), texts)})
    pq.write_table(table, tmp_path / "a.parquet")
    bad, good = read_table(tmp_path / "a.parquet")
    assert bad == BadRow(f"{tmp_path / 'a.parquet'}: row 1", "a text in it is not UTF-8: its byte 4 is 0xe9")
    assert not isinstance(good, BadRow)
    assert good.values == {"text": "b", "list": ["good"]}


SEPARATED = {
    "text;label\nEs wächst, nichts;pests\nFällig;rent\n": "semicolons",
    "text\tlabel\nEs wächst, nichts\tpests\nFällig\trent\n": "tabs",
    "text|label\nEs wächst, nichts|pests\nFällig|rent\n": "bars",
    # the header has both; the rows decide
    "text;label, long\nEs wächst, nichts;pests\nFällig;rent\n": "semicolons",
    "text;label, long;\nEs wächst, nichts;pests;\nFällig;rent;\n": "semicolons",
}


@pytest.mark.parametrize("content", SEPARATED)
def test_separators_are_found_in_the_header_and_the_first_rows(tmp_path: Path, content: str) -> None:
    for mark in ("", "\ufeff"):
        rows, said = rows_of(tmp_path / "a.csv", mark + content)
        assert [list(row.values()) for row in rows] == [["Es wächst, nichts", "pests"], ["Fällig", "rent"]]
        assert said == [f"fields are parted by {SEPARATED[content]}"]


def test_a_comma_that_fits_is_the_separator_whatever_else_the_header_has(tmp_path: Path) -> None:
    rows, said = rows_of(tmp_path / "a.csv", 'text,"label; a|b",note|s\n1,2,3\n4,"x;y",5\n')
    assert (rows[1], said) == ({"text": "4", "label; a|b": "x;y", "note|s": "5"}, [])


def test_separators_that_both_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b;c\n1,2;3\n4,5;6\n")
    with pytest.raises(
        UserError, match=r"a\.csv:1: commas and semicolons both part the header and the rows; a line sep="
    ):
        read_rows(path)
    with pytest.raises(UserError, match="commas and semicolons"):
        RowStream(path)
    rows, _ = rows_of(path, "sep=;\na,b;c\n1,2;3\n")
    assert rows == [{"a,b": "1,2", "c": "3"}]


def test_a_fault_in_the_rows_that_were_looked_at_stays_theirs(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a;b, c\n1;2\n\xff;3\n4;5\n")
    found = read_table(tmp_path / "a.csv")
    assert [row.source.rpartition(":")[2] for row in found] == ["2", "3", "4"]
    assert [isinstance(row, BadRow) for row in found] == [False, True, False]


def test_a_decimal_comma_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;score\nso so;3,5\n")
    row = read_rows(tmp_path / "a.csv")[0]
    with pytest.raises(UserError, match=r"a\.csv:2: column 'score' is '3,5', not a number; write 3\.5, with a point"):
        row.number("score")
