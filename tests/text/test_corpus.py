"""Every source of text, everything that can be wrong with it, and memory that does not grow."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bothways.errors import UserError
from bothways.text.corpus import CorpusOptions, Document, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.sentences import split_sentences
from bothways.text.sources import resolve_sources

TEXTS = ["First text, “quoted”.\nIts second line.", "Another — naïve — text."]


def read(*sources: Path | str, **options: object) -> tuple[list[Document], CorpusReport]:
    report = CorpusReport()
    found = resolve_sources([str(source) for source in sources])
    return list(read_documents(found, CorpusOptions(**options), report)), report  # type: ignore[arg-type]


def texts(documents: Sequence[Document]) -> list[str]:
    return [document.text for document in documents]


def write_all_formats(folder: Path) -> None:
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    table = pa.Table.from_pylist([{"text": text, "n": 1} for text in TEXTS])
    pq.write_table(table, folder / "a.parquet")
    table.to_pandas().to_json(folder / "a.jsonl", orient="records", lines=True, force_ascii=False)
    table.to_pandas().to_csv(folder / "a.csv", index=False)
    table.to_pandas().replace("\n", " ", regex=True).to_csv(folder / "a.tsv", index=False, sep="\t")


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    write_all_formats(tmp_path)
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert texts(read(tmp_path / name)[0]) == TEXTS, name
    assert texts(read(tmp_path / "a.tsv")[0]) == [text.replace("\n", " ") for text in TEXTS]
    assert texts(read(tmp_path / "0.txt", tmp_path / "1.txt")[0]) == TEXTS
    assert texts(read(tmp_path / "*.txt")[0]) == TEXTS
    for name in ("0.txt", "a.jsonl", "a.csv"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        (tmp_path / f"{name}.zst").write_bytes(zstandard.compress(content[:9]) + zstandard.compress(content[9:]))
        expected = texts(read(tmp_path / name)[0])
        assert texts(read(tmp_path / f"{name}.gz")[0]) == expected
        assert texts(read(tmp_path / f"{name}.zst")[0]) == expected
    documents, report = read(tmp_path)
    assert len(documents) == report.documents == 2 + 2 * 4 + 2 * 5
    assert report.bytes_read == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_berts_own_input_format(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One sentence.\nTwo. Still two.\n\n\nNext document.\n   \nThird.")
    documents, _ = read(tmp_path / "a.txt", documents="blank-line")
    assert [split_sentences(document) for document in documents] == [
        ["One sentence.", "Two. Still two."],
        ["Next document."],
        ["Third."],
    ]
    assert [document.source.rpartition(":")[2] for document in documents] == ["1", "5", "7"]


def test_markdown_becomes_prose(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# A *title*\n\nSome [linked](http://x) `code` text\nwrapped.\n\n```\nx = 1\n```\n\n- item\n"
    )
    ((document,), _) = read(tmp_path / "a.md")
    assert document.text.split("\n\n") == ["A title", "Some linked code text wrapped.", "item"]


def test_long_documents_are_cut_and_empty_ones_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789\n" * 10)
    documents, report = read(tmp_path / "a.txt", max_document_characters=30)
    assert "".join(texts(documents)) == "0123456789\n" * 10
    assert max(len(document.text) for document in documents) <= 30
    assert report.remarks[str(tmp_path / "a.txt")]["long document cut into several"][0] == len(documents) - 1
    (tmp_path / "b.jsonl").write_text('{"text": ""}\n{"text": " \\n"}\n{"text": null}\n{"text": "x"}\n')
    documents, report = read(tmp_path / "b.jsonl")
    assert texts(documents) == ["x"]
    assert report.lines() == [f"{tmp_path / 'b.jsonl'}: empty document: 3 (first at line 1)"]
    assert CorpusReport.from_dict(report.to_dict()).lines() == report.lines()


BAD: dict[str, tuple[bytes, str, list[str]]] = {
    "latin.txt": (b"fine\ncaf\xe9\nfine\n", r"latin\.txt:2: not UTF-8: byte 4 of the line is 0xe9", ["fine\nfine\n"]),
    "binary.txt": (b"\x7fELF\0\0\0\n", r"binary\.txt:1: binary file", []),
    "long.txt": (b"fine\n" + b"x" * 9000 + b"\nfine\n", r"long\.txt:2: line too long: 9,001 bytes", ["fine\nfine\n"]),
    "long.jsonl": (b'{"text": "a"}\n{"text": "' + b"x" * 9000 + b'"}\n', r"long\.jsonl:2: line too long", ["a"]),
    "bad.jsonl": (b'{"text": "a"}\n{"text"\n{"text": "b"}\n', r"bad\.jsonl:2: not valid JSON", ["a", "b"]),
    "list.jsonl": (b'["a"]\n{"text": "b"}\n', r"list\.jsonl:1: not a JSON object: list", ["b"]),
    "number.jsonl": (b'{"text": 7}\n{"text": "b"}\n', r"number\.jsonl:1: column 'text' is not text: 7", ["b"]),
    "fields.csv": (b"text,n\na,1\nb\nc,3\n", r"fields\.csv:3: wrong number of fields: 1, the header has 2", ["a", "c"]),
    "torn.txt.gz": (gzip.compress(b"fine\n" * 5000)[:-20], "damaged compressed file", []),
    "torn.txt.zst": (b"not zstandard at all", "damaged compressed file", []),
    "torn.parquet": (b"PAR1....", "not a readable parquet file", []),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_text_is_named_or_left_out_and_counted(name: str, tmp_path: Path) -> None:
    content, message, kept = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name, max_line_characters=8000)
    with pytest.raises(UserError, match="skip_bad"):
        read(tmp_path / name, max_line_characters=8000)
    documents, report = read(tmp_path / name, max_line_characters=8000, skip_bad=True)
    if kept:
        assert texts(documents) == kept
    assert sum(count for count, _ in report.remarks[str(tmp_path / name)].values()) >= 1


def test_missing_things_list_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("subject,body\na,b\n")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"notes\.csv:2: no column 'text'; columns present: subject, body"):
        read(tmp_path / "notes.csv", skip_bad=True)
    with pytest.raises(UserError, match=r"no column 'bodi', did you mean 'body'\?; columns present: body"):
        read(tmp_path / "t.parquet", text_column="bodi")
    with pytest.raises(UserError, match=r"notes\.cvs: no such file or folder, did you mean 'notes\.csv'\?"):
        read(tmp_path / "notes.cvs")
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"\.png suffix; text is read from \.txt"):
        read(tmp_path / "picture.png")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match="no file of a known suffix in this folder"):
        read(tmp_path / "pictures")
    with pytest.raises(UserError, match="no file of a known suffix matches"):
        read(tmp_path / "*.docx")
    with pytest.raises(UserError, match="no such package or module is installed"):
        read("python-docs:no_such_package")


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    line = b'{"text": "' + b"word " * 200 + b'"}\n'
    (tmp_path / "a.jsonl").write_bytes(line * 6_000)
    (tmp_path / "b.txt").write_bytes(b"word " * 200 + b"\n")
    with (tmp_path / "b.txt").open("ab") as file:
        for _ in range(6):
            file.write((b"word " * 200 + b"\n") * 1000)
    tracemalloc.start()
    documents = characters = 0
    report = CorpusReport()
    sources = resolve_sources([str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt")])
    for document in read_documents(sources, CorpusOptions(max_document_characters=200_000), report):
        documents += 1
        characters += len(document.text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert characters > 10_500_000
    assert documents > 6_000
    assert peak < 4_000_000


def test_real_articles(shared_data: Path) -> None:
    documents, report = read(shared_data / "wikipedia-small.jsonl.zst")
    assert len(documents) == 1092
    assert report.bytes_read == (shared_data / "wikipedia-small.jsonl.zst").stat().st_size
    assert not report.remarks
    lengths = [len(sentence) for sentence in split_sentences(documents[0])]
    assert 30 < sum(lengths) / len(lengths) < 200


def test_hard_wrapped_text_is_joined_and_other_lines_are_kept_apart() -> None:
    wrapped = (
        "This is a sentence that was\nbroken at a column by an\neditor. And another one that\nends here.\n\n"
        "A new paragraph\nfollows it."
    )
    assert split_sentences(Document(wrapped, "x:1")) == [
        "This is a sentence that was broken at a column by an editor.",
        "And another one that ends here.",
        "A new paragraph follows it.",
    ]
    apart = "A title without a full stop\nA paragraph. With Dr. Smith in it.\nAnother paragraph"
    assert split_sentences(Document(apart, "x:1")) == [
        "A title without a full stop",
        "A paragraph.",
        "With Dr. Smith in it.",
        "Another paragraph",
    ]


MODULE = '''"""A module about  parsing things.

It reads a file and gives you its parts. Nothing is lost on the way.

>>> parse("x")
1

.. note:: markup goes away
"""
class Parser:
    """Parses `things` with :class:`~lib.Tool` care.  It never fails."""
    def run(self):
        """A module method that does the work. See the class for more."""
    def again(self):
        """Parses `things` with :class:`~lib.Tool` care.  It never fails."""
'''


def test_python_documentation_is_prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lib"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text(MODULE)
    (package / "broken.py").write_text('"""A doc. It is fine. Really so."""\ndef (:\n')
    (package / "quiet.py").write_text("x = 1\n")
    (package / "tests" / "test_x.py").write_text(MODULE)
    paths = dict.fromkeys(("stdlib", "purelib", "platlib"), str(tmp_path))
    monkeypatch.setattr("sysconfig.get_paths", lambda: paths)
    documents, report = read("python-docs:lib")
    assert len(documents) == 1
    assert documents[0].text.splitlines() == [
        "A module about  parsing things.",
        "It reads a file and gives you its parts. Nothing is lost on the way.",
        "Parses things with lib.Tool care.  It never fails.",
        "A module method that does the work. See the class for more.",
    ]
    assert documents[0].source.endswith("__init__.py")
    assert report.lines()[0].startswith("python-docs:lib: module that does not parse left out: 1")
    assert texts(read("python-docs:lib")[0]) == texts(documents)


def test_the_standard_library_has_much_to_say() -> None:
    documents, _ = read("python-docs:email,json,logging")
    words = sum(len(document.text.split()) for document in documents)
    assert words > 5000
    assert "test" not in {Path(document.source).parent.name for document in documents}
