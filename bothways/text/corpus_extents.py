"""Where files of a corpus are cut into extents, so that each gives the documents that the whole file has there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bothways.text.corpus import CorpusOptions, SourceExtent, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.csv_records import CsvDialect
from bothways.text.extents import (
    CANDIDATE_ROWS,
    WHOLE,
    Extent,
    ExtentSize,
    cut_at,
    cut_lines,
    cut_parquet,
    is_plain_utf8,
)
from bothways.text.lines import Fault
from bothways.text.sources import Source
from bothways.text.table_reader import CSV_SUFFIXES, JSON_SUFFIXES, TableReader, TableReaderOptions


def cut_source(source: Source, options: CorpusOptions, extent_bytes: int) -> list[SourceExtent]:
    """The extents of a source, of about so many bytes; one where it is no larger, or cannot be read in extents.

    JSON lines are cut after lines, texts with blank lines between their documents after a blank line, other texts where
    a document begins of those that a long file becomes, tables of quoted fields after a record. Raises OSError.
    """
    if source.path is None or source.size <= extent_bytes:
        return [SourceExtent(source)]
    extents, dialect = _extents(source, source.path, options, ExtentSize(extent_bytes))
    return [SourceExtent(source, extent, dialect) for extent in extents]


def _extents(
    source: Source, path: Path, options: CorpusOptions, size: ExtentSize
) -> tuple[list[Extent], CsvDialect | None]:
    if source.kind == ".parquet":
        return cut_parquet(path, size), None
    if source.kind == ".json" or not is_plain_utf8(path, options.encoding):
        return [WHOLE], None
    if source.kind in JSON_SUFFIXES:
        return cut_lines(path, size), None
    if source.kind in CSV_SUFFIXES:
        limit = options.max_line_characters
        columns = (options.text_column,)
        return cut_csv(path, TableReaderOptions(limit, limit, False, columns, suffix=source.kind), size)
    if source.kind == ".txt" and options.documents == "blank-line":
        return cut_lines(path, size, after=lambda line: not line.strip()), None
    return _cut_documents(source, path, options, size), None


def cut_csv(path: Path, options: TableReaderOptions, size: ExtentSize) -> tuple[list[Extent], CsvDialect | None]:
    """The extents of a .csv or .tsv, found by reading its records, and how they are read."""
    reader = TableReader(path, options)
    places: list[tuple[int, int]] = []
    can_begin = False
    for number, row in enumerate(reader.rows()):
        if isinstance(row, Fault):
            if row.final:
                return [WHOLE], None
            can_begin = False
            continue
        if can_begin and (not places or number - places[-1][1] >= CANDIDATE_ROWS):
            places.append((row.line, number))
        # The reader of a .tsv looks at the line behind a last field that opens a quote.
        can_begin = not next(reversed(row.values.values()), "").startswith('"')
    if reader.dialect is None or not places:
        return [WHOLE], None
    return cut_at(path, [(reader.dialect.first_line, 0), *places], size), reader.dialect


def _cut_documents(source: Source, path: Path, options: CorpusOptions, size: ExtentSize) -> list[Extent]:
    """The extents of a text that is cut into documents only for its length."""
    places = [(line, number) for number, line in enumerate(_first_lines(source, options))]
    return cut_at(path, [(1, 0), *places[1:]], size)


def _first_lines(source: Source, options: CorpusOptions) -> Iterator[int]:
    """The lines at which documents begin. What cannot be read is left out, for the reader to complain of."""
    for document in read_documents([source], replace(options, skip_bad=True), CorpusReport()):
        yield int(document.source.rpartition(":")[2])
