"""The one reader of tables: rows and faults in order, and what each of its three callers makes of a fault."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.data.stream import RowStream
from bothways.data.tables import BadRow, read_rows
from bothways.errors import UserError
from bothways.text.corpus import CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.lines import Fault
from bothways.text.sources import resolve_sources
from bothways.text.table_reader import TableReader, TableReaderOptions


def found(path: Path, options: TableReaderOptions | None = None, skip: int = 0) -> list[tuple[int, object]]:
    """Line and values of every row, line and reason of every fault."""
    rows = TableReader(path, options).rows(skip)
    return [(row.line, row.reason if isinstance(row, Fault) else row.values) for row in rows]


FAULTS = {
    "a.jsonl": (b'{"text": "a"}\n[]\n\n{"text": "b"}\n', "not a JSON object"),
    "a.csv": (b"text\na\nx,y\nb\n", "wrong number of fields"),
    "a.tsv": (b'text\na\n"x"\ty\nb\n', "wrong number of fields"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_stops_is_counted_or_is_set_aside(name: str, tmp_path: Path) -> None:
    content, reason = FAULTS[name]
    path = tmp_path / name
    path.write_bytes(content)
    line = 2 if name == "a.jsonl" else 3
    assert [entry for entry in found(path) if isinstance(entry[1], str)] == [(line, reason)]
    with pytest.raises(UserError, match=rf"{name}:{line}: "):
        read_rows(path)
    report = CorpusReport()
    documents = read_documents(resolve_sources([str(path)]), CorpusOptions(skip_bad=True), report)
    assert [document.text for document in documents] == ["a", "b"]
    assert report.remarks == {str(path): {reason: (1, line)}}
    rows = list(RowStream(path).rows())
    assert [isinstance(row, BadRow) for row in rows] == [False, True, False]
    assert rows[1].source == f"{path}:{line}"


def test_parquet_with_bytes_that_are_not_utf8_loses_only_those_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    text = pa.array([b"a", b"caf\xe9", b"b"]).cast(pa.binary())
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 3, text.buffers())}), path)
    assert found(path) == [(1, {"text": "a"}), (2, "not UTF-8"), (3, {"text": "b"})]
    with pytest.raises(UserError, match=r"a\.parquet: row 2: a text in it is not UTF-8: its byte 4 is 0xe9"):
        read_rows(path)
    assert [isinstance(row, BadRow) for row in RowStream(path).rows()] == [False, True, False]


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 4, 5])
def test_skipped_rows_count_bad_ones_and_batches(skip: int, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(5)}), tmp_path / "a.parquet", row_group_size=3)
    options = TableReaderOptions(batch_rows=2)
    expected = [(number + 1, {"n": number}) for number in range(5)]
    assert found(tmp_path / "a.parquet", options, skip) == expected[skip:]
    (tmp_path / "a.jsonl").write_text('{"n": 0}\n\n[]\n{"n": 2}\n{"n": 3}\n5\n')
    every = found(tmp_path / "a.jsonl")
    assert len(every) == 5
    assert found(tmp_path / "a.jsonl", skip=skip) == every[skip:]


def test_a_file_that_ends_too_early_is_never_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 4000)[:-20])
    assert [reason for _, reason in found(path, skip=10_000)] == ["damaged compressed file"]


def test_lines_of_any_length_take_no_more_memory_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 5000 + b'"}\n{"a": 2}\n')
    options = TableReaderOptions(max_line_characters=1000)
    assert found(path, options) == [(1, {"a": 1}), (2, "line too long"), (3, {"a": 2})]


def test_repeated_columns_and_nul_bytes_pass_where_the_reader_is_not_strict(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,a\n1,2\n" + b"3,4\n" * 3000 + b"5,\0\n")
    assert found(path) == [(1, "repeated column")]
    lenient = found(path, TableReaderOptions(strict=False))
    assert lenient[0] == (2, {"a": "2"})
    assert lenient[-1] == (3003, {"a": "\0"})
