"""Bytes → decoded lines, in bounded memory whatever the file holds."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

import pyarrow as pa

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


class Lines:
    """The decoded lines of a stream, with their ends; never more than `limit` characters of one are held.

    number: of the last line. problem: what was wrong with a line up to it, as (line, reason, detail), until taken; it
    may outlive its line because the csv module asks for several at once. What came in place of a wrong line is not to
    be used: nothing, or for the sake of the quotes in it the line with its undecodable bytes replaced.
    """

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit = stream, limit
        self.number = 0
        self.problem: tuple[int, str, str] | None = None

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(self._limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > self._limit and not line.endswith(b"\n"):
            line = self._read_on(line)
        if self.number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            place = f"byte {error.start + 1:,} of the line is 0x{line[error.start]:02x}"
            self.problem = self.problem or (self.number, "not UTF-8", place)
            return line.decode("utf-8", "replace")

    def _read_on(self, line: bytes) -> bytes:
        """The whole of a line that has more bytes than the limit, if it has no more characters, else nothing."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        parts, characters = [line], len(decoder.decode(line))
        while characters <= self._limit and not line.endswith(b"\n"):
            line = self._stream.readline(self._limit + 1 - characters)
            if not line:
                break
            parts.append(line)
            characters += len(decoder.decode(line))
        if characters <= self._limit or line.endswith(b"\n"):
            return b"".join(parts)
        length = sum(map(len, parts)) + self._skip()
        detail = f"{length:,} bytes, more than {self._limit:,} characters"
        self.problem = self.problem or (self.number, "line too long", detail)
        return b""

    def _skip(self) -> int:
        """Read past the rest of the line without holding it; returns its bytes."""
        skipped = 0
        while part := self._stream.readline(1 << 16):
            skipped += len(part)
            if part.endswith(b"\n"):
                break
        return skipped

    def take_problem(self) -> tuple[int, str, str] | None:
        problem, self.problem = self.problem, None
        return problem


def decompressed(raw: IO[bytes], path: Path) -> AbstractContextManager[io.BufferedReader]:
    """The bytes of a file. Arrow decompresses because it notices a stream that ends too early; `zstandard` does not."""
    compression = COMPRESSIONS.get(path.suffix)
    if compression is None:
        assert isinstance(raw, io.BufferedReader)
        return nullcontext(raw)
    return io.BufferedReader(pa.input_stream(raw, compression=compression), 1 << 17)


def next_row(reader: Iterator[list[str]], limit: int) -> list[str] | None:
    """A row with fields of at most `limit` characters, or None after the last one.

    The csv module has one limit for the whole process, so it is put back. Raises csv.Error.
    """
    before = csv.field_size_limit(limit)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def is_unicode(text: str) -> bool:
    """False for text with half a surrogate pair, which JSON can spell and no tokenizer can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
