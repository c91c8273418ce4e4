"""Text that is not UTF-8: read as what it says it is or the user says, or named with the cure."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bothways.cli import main
from bothways.data.stream import RowStream
from bothways.data.tables import TableOptions, read_rows
from bothways.errors import UserError
from bothways.text.corpus import CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.encodings import checked_encoding, likely_encoding
from bothways.text.sources import resolve_sources
from bothways.verbs.text_arguments import file_lines

GERMAN = "Liebe Nachbarn,\ndie Gärten müssen geräumt werden – schön wäre „bald“.\n"
TEXTS = {
    "cp1252": GERMAN,
    "cp1251": "Уважаемые соседи, огород нужно убрать.",
    "koi8-r": "Уважаемые соседи, огород нужно убрать.",
    "shift_jis": "今年のトマトはアブラムシに食べられました。",
    "euc_jp": "今年のトマトはアブラムシに食べられました。",
    "gb18030": "今年番茄受到了蚜虫的危害。我们在花园里有人。",
    "big5": "今年番茄受到了蚜蟲的危害。我們在花園裡有人。",
    "euc_kr": "올해 토마토는 진딧물 피해를 입었습니다.",
    "utf-16-le": "plain text",
    "utf-16-be": "plain text",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_likely_encoding_is_that_of_the_text(encoding: str) -> None:
    assert likely_encoding(TEXTS[encoding].encode(encoding)) == encoding


def test_nothing_is_likely_of_bytes_that_are_no_text() -> None:
    for content in (bytes(range(256)), b"a\0b", "für über".encode("cp850")):
        assert likely_encoding(content) == ""


def test_a_quotation_mark_beside_a_letter_is_western() -> None:
    assert likely_encoding("for Zoë’s class in the café – „Über“".encode("cp1252")) == "cp1252"


def documents_of(folder: Path, **options: object) -> tuple[list[str], CorpusReport]:
    report = CorpusReport()
    found = read_documents(resolve_sources([str(folder)]), CorpusOptions(**options), report)  # type: ignore[arg-type]
    return [document.text for document in found], report


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_is_believed_and_said(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(GERMAN.encode(encoding))
    for given in ("utf-8", "cp1252"):  # whatever else is said
        texts, report = documents_of(path, encoding=given)
        assert texts == [GERMAN]
        said = [] if encoding == "utf-8-sig" else [f"{path}: read as {encoding.upper()}"]
        assert report.lines() == said
        assert file_lines(path, given) == GERMAN.splitlines()


def test_a_folder_of_both_kinds_is_read_with_one_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(GERMAN.encode("cp1252"))
    (tmp_path / "b.TXT").write_bytes(GERMAN.encode())
    (tmp_path / "c.txt.GZ").write_bytes(gzip.compress(GERMAN.encode("cp1252")))
    (tmp_path / "d.MD").write_bytes(GERMAN.encode("utf-16"))
    with pytest.raises(
        UserError, match=r"a\.txt:2: not UTF-8: byte 6 .* Windows-1252, encoding='cp1252' reads it; skip"
    ):
        documents_of(tmp_path)
    texts, report = documents_of(tmp_path, encoding="cp1252")
    assert [" ".join(text.split()) for text in texts] == [" ".join(GERMAN.split())] * 4
    assert report.lines() == [
        f"{tmp_path / 'a.txt'}: read as CP1252",
        f"{tmp_path / 'c.txt.GZ'}: read as CP1252",
        f"{tmp_path / 'd.MD'}: read as UTF-16",
    ]


def test_bytes_that_the_encoding_lacks_are_a_fault_of_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nb\x81d\xe4\nm\xe4rz\n")  # 0x81 is none of Windows-1252's characters
    with pytest.raises(UserError, match=r":2: not cp1252: character 2 of the line"):
        documents_of(tmp_path, encoding="cp1252")
    texts, report = documents_of(tmp_path, encoding="cp1252", skip_bad=True)
    assert texts == ["good\nmärz\n"]
    assert report.remarks[str(tmp_path / "a.txt")]["not cp1252"] == (1, 2)


def test_lines_that_are_left_out_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("müde\n".encode("cp1252") * 30)
    texts, report = documents_of(tmp_path, skip_bad=True)
    assert (texts, report.lines()) == ([], [f"{tmp_path / 'a.txt'}: not UTF-8: 30 (first at line 1)"])


TABLE = "text,label\nEs wächst nichts,pests\nDie Pacht ist fällig,rent\n"


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.tsv", "t.csv.GZ", "t.CoNLL", "t.jsonl", "t.json"])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le"])
def test_tables_in_other_encodings_have_the_same_rows(tmp_path: Path, name: str, encoding: str) -> None:
    content = {"t.tsv": TABLE.replace(",", "\t"), "t.CoNLL": "Gärten\tB\nsind\tO\n\nschön\tB\n\n"}.get(name, TABLE)
    if "json" in name:
        content = '[{"text": "schön"}]' if name == "t.json" else '{"text": "schön"}\n'
    plain, path = tmp_path / f"plain{name}", tmp_path / name
    for file, data in ((plain, content.encode()), (path, content.encode(encoding))):
        file.write_bytes(gzip.compress(data) if name.endswith("GZ") else data)
    said: list[str] = []
    options = TableOptions(say=said.append, encoding="cp1252" if encoding == "utf-16" else encoding)
    expected = [dict(row.values) for row in read_rows(plain)]
    assert [dict(row.values) for row in read_rows(path, options=options)] == expected
    assert said == [f"{path}: read as {encoding.upper()}"]
    stream = RowStream(path, options=options)
    assert [dict(row.values) for row in stream.rows()] == expected  # type: ignore[union-attr]
    assert (stream.count(), stream.remarks) == (len(expected), [f"read as {encoding.upper()}"])


def test_the_cure_is_named_for_tables_and_single_files(tmp_path: Path) -> None:
    for name in ("t.csv", "t.txt"):
        (tmp_path / name).write_bytes(TABLE.encode("cp1252"))
    with pytest.raises(
        UserError, match=r"t\.csv:2: byte 5 of the line, 0xe4, is not UTF-8; .*encoding='cp1252' reads it$"
    ):
        read_rows(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"t\.txt:2: byte 0xe4 is not UTF-8; .*encoding='cp1252' reads it$"):
        file_lines(tmp_path / "t.txt")
    assert file_lines(tmp_path / "t.txt", "cp1252") == TABLE.splitlines()
    (tmp_path / "t.csv").write_bytes(TABLE.encode("utf-16-le"))
    with pytest.raises(
        UserError, match=r"t\.csv:1: a NUL byte; it looks like UTF-16-LE .*encoding='utf-16-le' reads it$"
    ):
        read_rows(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cp1252x", "did you mean 'cp1252'"),
        ("rot13", "no encoding of text"),
        ("base64", "no encoding of text"),
        ("", "cp1252, latin-1 or gb18030, say"),
        ("a\0b", "no encoding of text"),
        ("iso-2022-jp", "iconv -f iso-2022-jp -t UTF-8 FILE"),
    ],
)
def test_wrong_names_are_refused(name: str, message: str) -> None:
    for make in (checked_encoding, lambda name: CorpusOptions(encoding=name), lambda name: TableOptions(encoding=name)):
        with pytest.raises(UserError, match=message):
            make(name)
    assert checked_encoding("Windows-1252") == "Windows-1252"


def test_the_verbs_know_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_bytes((GERMAN * 3).encode("cp1252"))
    rest = ["--vocab-size", "300", "--keep-marks", "--out"]
    assert main(["tokenizer", str(tmp_path / "a.txt"), *rest, str(tmp_path / "v")]) == 2
    assert "--encoding cp1252 reads it" in capsys.readouterr().err
    assert main(["tokenizer", str(tmp_path / "a.txt"), "--encoding", "cp1252", *rest, str(tmp_path / "v")]) == 0
    said = capsys.readouterr().err
    assert f"{tmp_path / 'a.txt'}: read as CP1252" in said
    assert "the text has no more pieces that occur at least 2 times: " in said
    assert "ä" in (tmp_path / "v" / "vocab.txt").read_text(encoding="utf-8").split()
    store = ["prepare", str(tmp_path / "a.txt"), "--tokenizer", str(tmp_path / "v"), "--out", str(tmp_path / "s")]
    assert main([*store, "--encoding", "cp1252", "--workers", "1"]) == 0
    assert "(0.000% unknown)" in capsys.readouterr().out
