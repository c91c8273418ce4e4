"""Every format, every bad input, memory, and the real Wikipedia file."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import UserError
from bothways.text.corpus import CorpusOptions, Document, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.sentences import is_hard_wrapped, split_sentences
from bothways.text.sources import resolve_sources

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
TEXTS = ["First document. Two sentences.", "Zweites Dokument – mit Umlauten: äöü.", "三つ目の文書。"]


def read(*paths: Path | str, **options: object) -> tuple[list[Document], CorpusReport]:
    report = CorpusReport()
    resolved = resolve_sources([str(path) for path in paths])
    return list(read_documents(resolved, CorpusOptions(**options), report)), report  # type: ignore[arg-type]


def texts(*paths: Path | str, **options: object) -> list[str]:
    return [document.text for document in read(*paths, **options)[0]]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(suffix: str, rows: list[str]) -> bytes:
    if suffix in (".jsonl", ".ndjson"):
        return "".join(json.dumps({"id": 1, "text": row}) + "\n" for row in rows).encode()
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
    writer.writerows([["id", "text"], *(["1", row] for row in rows)])
    return file.getvalue().encode()


# Formats


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".csv", ".tsv"])
def test_tables_round_trip(tmp_path: Path, suffix: str, compression: str) -> None:
    path = write(tmp_path / f"a{suffix}{compression}", COMPRESS[compression](table(suffix, TEXTS)))
    documents, report = read(path)
    assert [document.text for document in documents] == TEXTS
    assert documents[0].source == f"{path}:{1 if 'json' in suffix else 2}"
    assert (report.documents, report.characters, report.bytes_read) == (3, sum(map(len, TEXTS)), path.stat().st_size)


@pytest.mark.parametrize("compression", COMPRESS)
def test_txt_is_one_document(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / f"a.txt{compression}", COMPRESS[compression]("\ufeffOne.\n\nTwo.\n".encode()))
    documents, _ = read(path)
    assert documents == [Document("One.\n\nTwo.\n", f"{path}:1")]


def test_concatenated_streams_are_read_to_the_end(tmp_path: Path) -> None:
    for suffix, compress in list(COMPRESS.items())[1:]:
        assert texts(write(tmp_path / f"a.txt{suffix}", compress(b"one\n") + compress(b"two\n"))) == ["one\ntwo\n"]


def test_txt_parted_by_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\n\nOne.\nTwo.\n\n \nThree.\n")
    documents, _ = read(path, documents="blank-line")
    assert documents == [Document("One.\nTwo.\n", f"{path}:3", True), Document("Three.\n", f"{path}:7", True)]
    assert split_sentences(documents[0]) == ["One.", "Two."]


def test_parquet_reads_only_its_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": [*TEXTS, None], "n": [1, 2, 3, 4]}), path)
    documents, report = read(path, text_column="body")
    assert [document.text for document in documents] == TEXTS
    assert documents[2].source == f"{path}:3"
    assert report.remarks == {str(path): {"empty document": (1, 4)}}


def test_markdown_becomes_prose(tmp_path: Path) -> None:
    markdown = (
        "---\ntitle: hidden\n---\n# A *head*\n\nWrapped [link](http://x.y)\nline with `code`<br>.\n\n"
        "```py\nhidden()\n```\n\n    hidden too\n\n- item **one**\n- two\n\n| a | b |\n|---|---|\n| c | d |\n"
    )
    [text] = texts(write(tmp_path / "a.md", markdown))
    assert text.split("\n\n") == ["A head", "Wrapped link line with code.", "item one", "two", "a", "b", "c", "d"]


def test_csv_fields_may_span_lines_and_be_long(tmp_path: Path) -> None:
    rows = ["a\nb, c\n", "x" * 300_000, 'say ""hello""']
    assert texts(write(tmp_path / "a.csv", table(".csv", rows))) == rows
    assert csv.field_size_limit() == 131072  # the process's setting is as it was


@given(rows=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_any_text_survives_a_table(rows: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    kept = [row for row in rows if not row.isspace()]
    for suffix in (".csv", ".jsonl"):
        documents, report = read(write(folder / f"a{suffix}", table(suffix, rows)))
        assert [document.text for document in documents] == kept
        assert report.documents == len(kept)


# Sources


def test_what_is_said_of_many_files_is_one_line() -> None:
    report = CorpusReport()
    for number in range(5):
        report.count(f"{number}.txt", 0, "read as CP1252", 0)
        report.count(f"{number}.txt", 7 + number, "empty document", 2)
    report.count("9.txt", 3, "line too long")
    assert report.lines() == [
        "0.txt and 4 other files: read as CP1252",
        "0.txt and 4 other files: empty document: 10 (first at line 7)",
        "9.txt: line too long: 1 (first at line 3)",
    ]
    few = CorpusReport(remarks={f"{number}.txt": {"read as CP1252": (0, 0)} for number in range(3)})
    assert few.lines(2) == ["0.txt: read as CP1252", "1.txt: read as CP1252", "… and 1 more remarks"]


def test_folders_are_read_sorted_and_other_files_counted(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.jsonl", "a/a.txt.gz", "picture.png", "Makefile", ".hidden/c.txt"):
        path = tmp_path / "corpus" / name
        content = table(".jsonl", ["rows"]) if name.endswith(".jsonl") else name.encode()
        write(path, gzip.compress(content) if name.endswith(".gz") else content)
    folder = tmp_path / "corpus"
    documents, report = read(folder)
    assert [document.text for document in documents] == ["a/a.txt.gz", "rows", "b.txt"]
    assert report.remarks == {str(folder): {".png suffix, not read": (1, 0), "no suffix, not read": (1, 0)}}
    assert texts(folder / "**/*.jsonl") == ["rows"]
    assert read(folder) == (documents, report)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.txt", "no such file"),
        ("a.docx", "docx suffix; text is read from .txt"),
        ("empty", "no file of a known suffix in this folder; text is read from .txt"),
        ("*.csv", "no file of a known suffix matches"),
        ("python-docs:no_such_package", "no such package"),
    ],
)
def test_sources_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.docx", "x")
    write(tmp_path / "empty/x.bin", "x")
    with pytest.raises(UserError, match=message):
        resolve_sources([name])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "x")
    path.chmod(0)
    with pytest.raises(UserError, match=r"a\.txt: cannot be read: Permission denied"):
        read(path)


def test_file_that_vanishes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "x")
    sources = resolve_sources([str(path)])
    path.unlink()
    with pytest.raises(UserError, match=r"a\.txt: cannot be read: No such file"):
        list(read_documents(sources, CorpusOptions(skip_bad=True), CorpusReport()))


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="'line': expected 'file' or 'blank-line'"):
        CorpusOptions(documents="line")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="max_line_characters 0"):
        CorpusOptions(max_line_characters=0)


# What cannot be read

PROSE = b"".join(b"Line %d of %s.\n" % (n, os.urandom(20).hex().encode()) for n in range(5000))
# name, content, where and what the error says, what is left with skip_bad
BAD: list[tuple[str, bytes, str, list[str]]] = [
    (
        "a.txt",
        b"good\ncaf\xe9\nmore\n",
        r":2: not UTF-8: byte 4 of the line is 0xe9; .*encoding='cp1252' .*; skip_bad",
        ["good\nmore\n"],
    ),
    ("a.txt", b"\xef\xbb\xbfcaf\xe9\n", r":1: not UTF-8: byte 4 of the line", []),
    ("a.txt", b"a\0b", r":1: binary file: a NUL byte in it", []),
    ("a.txt", "some text".encode("utf-16-le"), r":1: a NUL byte: it looks like UTF-16-LE .*encoding='utf-16-le'", []),
    ("a.txt", b"x" * 5000 + b"\ngood\n", r":1: line too long: 5,001 bytes, more than 1,000 characters", ["good\n"]),
    ("a.txt.gz", b"not gzip", r": damaged compressed file", []),
    ("a.txt.zst", b"not zstd", r": damaged compressed file", []),
    ("a.txt.gz", gzip.compress(PROSE)[:50_000], r": damaged compressed file: Truncated", []),
    ("a.txt.zst", zstandard.compress(PROSE)[:50_000], r": damaged compressed file: Truncated", []),
    ("a.jsonl", b'{"text": "good"}\n{"text": \n', r":2: not valid JSON: Expecting value", ["good"]),
    ("a.jsonl", b'["a"]\n{"text": "good"}\n', r":1: not a JSON object: list", ["good"]),
    ("a.jsonl", b'{"text": 5}\n{"text": "good"}\n', r":1: column 'text' is not text: 5", ["good"]),
    ("a.jsonl", b'{"text": "\\ud83d"}\n{"text": "good"}\n', r":1: half a surrogate pair", ["good"]),
    ("a.jsonl", b"[" * 900 + b"\n" + b'{"text": "good"}\n', r":1: not (valid|readable) JSON", ["good"]),
    ("a.jsonl", b'{"n": %s}\n{"text": "good"}\n' % (b"9" * 900), r":1: no column 'text'; columns present: n", []),
    ("a.csv", b'n,text\n1,good\n2,"open\n3,c\n', r":3: not valid csv: unexpected end", ["good"]),
    ("a.csv", b"n,text\n1,good\n2\n3,fine\n", r":3: wrong number of fields: 1, the header has 2", ["good", "fine"]),
    ("a.csv", b'n,text\n1,"one\xff\ntwo, three"\n2,good\n', r":2: not UTF-8: byte 7 of the line", ["good"]),
    ("a.csv", b'n,text\n1,good\n2,"' + b"x" * 2000 + b'\n"\n3,fine\n', r":3: line too long, nothing after", ["good"]),
    ("a.parquet", b"PAR1 is not all", r": not a readable parquet file", []),
]


@pytest.mark.parametrize(("name", "content", "message", "left"), BAD)
def test_bad_input_stops_or_is_counted(
    tmp_path: Path, name: str, content: bytes, message: str, left: list[str]
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as caught:
        read(path, max_line_characters=1000)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    if "no column" in message:  # a missing column is the option's fault, not the file's
        return
    documents, report = read(path, skip_bad=True, max_line_characters=1000)
    assert [document.text for document in documents] == left
    assert sum(count for count, _ in report.remarks[str(path)].values()) >= 1
    assert report.bytes_read == len(content)


def test_each_empty_document_is_counted_where_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 'bad\n{"text": ""}\n{"text": "a"}\n')
    assert read(path, skip_bad=True)[1].remarks == {str(path): {"not valid JSON": (1, 1), "empty document": (1, 2)}}
    path = write(tmp_path / "a.txt", "one\n\n\n\n\n\n\ntwo\n")
    assert read(path, max_document_characters=4)[1].remarks[str(path)]["empty document"] == (2, 2)


def test_json_beyond_python_is_no_crash(tmp_path: Path) -> None:
    lines = ["[" * 100_000, '{"n": ' + "9" * 5000 + "}", '{"text": "good"}']
    documents, report = read(write(tmp_path / "a.jsonl", "\n".join(lines)), skip_bad=True)
    assert [document.text for document in documents] == ["good"]
    assert report.remarks[str(tmp_path / "a.jsonl")] == {"not readable JSON": (2, 1)}


def test_damaged_and_wrongly_typed_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["some words"] * 1000}), path, compression="none", use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[30:300] = b"\xff" * 270
    with pytest.raises(UserError, match="not a readable parquet file"):
        read(write(path, bytes(damaged)))
    assert read(path, skip_bad=True)[0] == []
    pq.write_table(pa.table({"text": [1, 2]}), path)
    with pytest.raises(UserError, match=":1: column 'text' is not text: 1"):
        read(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_missing_column_lists_those_present(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": ["1"], "text": ["x"]}), path)
    else:
        write(path, table(suffix, ["x"]))
    for skip_bad in (False, True):
        with pytest.raises(UserError, match=r"no column 'txet', did you mean 'text'.*columns present: id, text"):
            read(path, text_column="txet", skip_bad=skip_bad)


def test_limits_count_characters_not_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "漢" * 1000 + "\n" + "漢" * 1001 + "\nend")
    _, report = read(path, skip_bad=True, max_line_characters=1000)
    assert report.remarks == {str(path): {"line too long": (1, 2)}}
    assert texts(path, max_line_characters=1001) == [path.read_text(encoding="utf-8")]


def test_empty_is_counted_and_told_apart(tmp_path: Path) -> None:
    empty, blank = write(tmp_path / "empty.txt", ""), write(tmp_path / "blank.jsonl", '{"text": " \\n"}\n')
    documents, report = read(empty, blank)
    assert documents == []
    assert report.remarks == {str(empty): {"empty file": (1, 1)}, str(blank): {"empty document": (1, 1)}}
    assert "empty file" in report.no_text_message([str(empty)])


# Long documents and memory


def test_long_documents_are_cut_at_paragraphs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "One.\nTwo.\n\nThree.\nFour.\n\nFive.\n")
    documents, report = read(path, max_document_characters=20)
    assert documents == [Document("One.\nTwo.\n\n", f"{path}:1"), Document("Three.\nFour.\n\nFive.\n", f"{path}:4")]
    assert report.remarks == {str(path): {"long document cut into several": (1, 1)}}


@given(
    lines=st.lists(st.sampled_from(["\n", "ab\n", "a longer line of text\n", "x" * 50 + "\n"])),
    limit=st.integers(1, 90),
)
def test_cutting_loses_nothing(lines: list[str], limit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("cut") / "a.txt", "".join(lines))
    documents, _ = read(path, max_document_characters=limit)
    assert "".join("".join(document.text for document in documents).split()) == "".join("".join(lines).split())
    for document in documents:
        first = int(document.source.rsplit(":", 1)[1])
        held = document.text.splitlines(keepends=True)
        assert lines[first - 1 : first - 1 + len(held)] == held
        assert len(document.text) <= limit or len(held) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "compression"),
    [*itertools.product(["one line", "lines"], COMPRESS), ("rows", ""), ("quote", "")],
)
def test_memory_is_bounded(tmp_path: Path, kind: str, compression: str) -> None:
    content = {
        "one line": b"word " * 3_000_000,
        "lines": b"A sentence of some forty characters, this.\n" * 350_000,
        "rows": b'{"text": "%s"}\n' % (b"A sentence of some words. " * 400) * 1500,
        "quote": b'text\n"' + (b"words, in a quote that is never closed " * 100 + b"\n") * 2500,
    }[kind]
    suffix = {"rows": ".jsonl", "quote": ".csv"}.get(kind, ".txt")
    path = write(tmp_path / f"a{suffix}{compression}", COMPRESS[compression](content))
    del content
    report = CorpusReport()
    sources = resolve_sources([str(path)])
    tracemalloc.start()
    options = CorpusOptions(skip_bad=True, max_line_characters=1_000_000, max_document_characters=100_000)
    for _ in read_documents(sources, options, report):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert report.bytes_read == path.stat().st_size


# Report


def test_reports_merge_and_survive_json() -> None:
    first, second = CorpusReport(2, 30, 40), CorpusReport(1, 5, 6)
    first.count("a.txt", 3, "not UTF-8")
    second.count("a.txt", 9, "not UTF-8", 2)
    second.count("b.txt", 1, "empty file")
    first.merge(second)
    assert (first.documents, first.characters, first.bytes_read) == (3, 35, 46)
    assert first.lines() == ["a.txt: not UTF-8: 3 (first at line 3)", "b.txt: empty file: 1 (first at line 1)"]
    again = CorpusReport.from_dict(json.loads(json.dumps(first.to_dict())))
    assert (again.documents, again.characters, again.remarks) == (first.documents, first.characters, first.remarks)


# The real thing


def test_wikipedia_small(shared_data: Path) -> None:
    path = shared_data / "wikipedia-small.jsonl.zst"
    documents, report = read(path)
    assert report.documents == len(documents) == 1092
    assert report.remarks == {}
    assert report.bytes_read == path.stat().st_size
    split = [split_sentences(document) for document in documents[:200]]
    words = [len(sentence.split()) for group in split for sentence in group]
    assert 15 < sum(words) / len(words) < 25
    assert max(words) < 700
    assert not any(is_hard_wrapped(document.text.splitlines()) for document in documents)
