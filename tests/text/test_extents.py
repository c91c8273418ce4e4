"""Files in extents: whatever the size of the extents, they give what the whole file gives, faults included."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.text.corpus import CorpusOptions, Document, read_documents, read_extents
from bothways.text.corpus_extents import cut_source
from bothways.text.corpus_report import CorpusReport
from bothways.text.extents import ExtentSize, cut_lines, cut_parquet, cut_rows
from bothways.text.sources import resolve_sources

WORDS = ("the", "dög", "runs", '"quoted"', "a,b", "semi;colon", "tab\tbed", "line\nend", "", "word word word")


def texts(number: int = 300, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 12))) for _ in range(number)]


def write_jsonl(path: Path) -> None:
    lines = [json.dumps({"text": text, "n": n}, ensure_ascii=False) for n, text in enumerate(texts())]
    lines[7], lines[150], lines[200] = "", '{"text": 5}', "{broken"
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write("# made by hand\n")
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["n", "text"])
        writer.writerows((n, text) for n, text in enumerate(texts()))
        file.write('9;"a"b;c\n1;2;3;4\n\n')
        writer.writerows((n, text) for n, text in enumerate(texts(seed=1)))


def write_tsv(path: Path) -> None:
    rows = [f"{n}\t{' '.join(text.split())}" for n, text in enumerate(texts())]
    rows[100] = '100\t"torn'
    rows[101] = "of it"
    path.write_text("\n".join(["n\ttext", *rows]) + "\n", encoding="utf-8")


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"n": range(300), "text": texts()}), path, row_group_size=70)


def write_paragraphs(path: Path) -> None:
    path.write_text("\n".join(text.replace("\n", " \n\n") + "\n\u00a0\n\n" for text in texts()), encoding="utf-8")


def write_damaged(path: Path) -> None:
    """A text with a line that is not UTF-8."""
    lines = "\n\n".join(texts()).encode().split(b"\n")
    lines[40] = b"sl\xc4ps"
    path.write_bytes(b"\n".join(lines))


def write_lines_of_one_kind(path: Path) -> None:
    path.write_text("no blank line here at all\n" * 200 + "the end", encoding="utf-8")


def write_gzip(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        file.write("\n".join(json.dumps({"text": text}) for text in texts()).encode())


KINDS = {
    "a.jsonl": write_jsonl,
    "a.csv": write_csv,
    "a.tsv": write_tsv,
    "a.parquet": write_parquet,
    "blank.txt": write_paragraphs,
    "a.txt": write_damaged,
    "a.md": write_paragraphs,
    "long.txt": write_lines_of_one_kind,
    "a.jsonl.gz": write_gzip,
}


@pytest.mark.parametrize("name", KINDS)
def test_extents_of_a_corpus_give_its_documents(name: str, tmp_path: Path) -> None:
    KINDS[name](tmp_path / name)
    [source] = resolve_sources(tmp_path / name)
    way: Any = "blank-line" if name == "blank.txt" else "file"
    options = CorpusOptions(skip_bad=True, documents=way, max_document_characters=400)
    expected = CorpusReport()
    wanted = list(read_documents([source], options, expected))
    assert len(wanted) > 10
    for size in (1, 100, 777, 5000):
        report, found = CorpusReport(), list[Document]()
        extents = cut_source(source, options, size)
        assert (len(extents) > 1) == (not name.endswith(".gz")), "or the test shows nothing"
        for extent in extents:
            of_extent = CorpusReport()
            found += read_extents([extent], options, of_extent)
            report.merge(of_extent)
        assert found == wanted
        assert json.dumps(report.to_dict()) == json.dumps(expected.to_dict()), "the order of the remarks counts"
        if name != "a.parquet" and not name.endswith("sv"):
            assert report.bytes_read == expected.bytes_read


def test_extents_are_as_large_as_they_are_asked_to_be(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("four\n" * 1000)
    extents = cut_lines(tmp_path / "a.txt", ExtentSize(50, least_rows=20, most_rows=30))
    assert [extent.rows for extent in extents] == [20] * 50
    extents = cut_lines(tmp_path / "a.txt", ExtentSize(10_000, most_rows=30))
    assert [extent.rows for extent in extents] == [30] * 33 + [10]
    extents = cut_lines(tmp_path / "a.txt", ExtentSize(100, least_rows=30, most_bytes=125))
    assert [extent.rows for extent in extents] == [25] * 40
    assert [extent.line for extent in extents] == list(range(1, 1001, 25))
    assert all(before.end == after.start for before, after in itertools.pairwise(extents))
    assert (extents[0].first, extents[0].last, extents[-1].first, extents[-1].last) == (True, False, False, True)


def test_row_groups_are_cut_only_where_they_are_large(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(1000)}), tmp_path / "a.parquet", row_group_size=100)
    extents = cut_parquet(tmp_path / "a.parquet", ExtentSize(1 << 30, most_rows=300))
    assert [(extent.start, extent.end) for extent in extents] == [(0, 300), (300, 600), (600, 900), (900, 1000)]
    extents = cut_parquet(tmp_path / "a.parquet", ExtentSize(1 << 30, most_rows=60))
    assert [extent.rows for extent in extents] == [60, 40] * 10
    assert [extent.rows for extent in cut_rows([1] * 10, ExtentSize(4))] == [4, 4, 2]
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    assert cut_parquet(tmp_path / "b.parquet", ExtentSize(1))[0].is_whole
