"""Bytes → decoded lines, in bounded memory whatever the file holds."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from bothways.errors import option
from bothways.text.encodings import (
    BINARY_SAMPLE_BYTES,
    UTF8,
    DecodedBytes,
    encoding_hint,
    is_all_utf8,
    is_utf8,
    likely_encoding,
    marked_encoding,
)

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SKIP_BYTES = 1 << 16  # read at a time of a line that is too long
# Decompressed bytes at a time: Arrow decompresses in blocks of 64 KB, and two of them cost no memory to speak of.
DECOMPRESSED_BUFFER_BYTES = 1 << 17


@dataclass(frozen=True)
class Fault:
    """Something in a file that cannot be read.

    line: where it is, from 1; 0 where it is the file as a whole. reason: the kind of fault in a few words, to count by.
    detail: what a person needs beside the reason. sentence: both in other words, for whoever reads a table of their
    own. final: nothing after it can be read.
    """

    line: int
    reason: str
    detail: str
    sentence: str = ""
    final: bool = False

    @property
    def message(self) -> str:
        """The sentence, or `reason: detail` where there is none."""
        return self.sentence or f"{self.reason}: {self.detail}"


class Lines(Iterator[str]):
    """The decoded lines of a stream, with their ends; never more than `limit` characters of a line are held. Of a file
    whose first lines end in a lone carriage return, as old spreadsheets write them, each of those ends a line.

    number: of the last line, from 1. first_line: the number of the stream's first line, where it is an extent of a file
    that begins there. fault: what was wrong with a line up to this one, until `take_fault`; it may
    outlive its line, because the csv module asks for several lines at once. What comes in place of a wrong line must
    not be used: it is empty, or for the sake of the quotes in it the line with its undecodable bytes replaced.
    encoding: what the stream is read as. allow_nul: False makes a NUL byte a fault.
    """

    def __init__(self, stream: IO[bytes], limit: int, allow_nul: bool = True, first_line: int = 1) -> None:
        self.encoding = stream.encoding if isinstance(stream, DecodedBytes) else UTF8
        self._stream = _with_line_feeds(stream) if first_line == 1 else stream
        self._limit, self._allow_nul = limit, allow_nul
        self.number = first_line - 1
        self.fault: Fault | None = None

    def __next__(self) -> str:
        line = self._stream.readline(self._limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > self._limit and not line.endswith(b"\n"):
            line = self._read_on(line)
        if not self._allow_nul and b"\0" in line:
            kind = _kind_of_nul(line + self._ahead()) or "this is a binary file, not text"
            self.note("NUL byte", "text has none", f"a NUL byte; {kind}")
        if self.number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            self._note_undecodable(line, error.start)
            return line.decode("utf-8", "replace")

    def _note_undecodable(self, line: bytes, start: int) -> None:
        if self.encoding != UTF8:
            place = f"character {len(line[:start].decode(errors='replace')) + 1} of the line"
            self.note(f"not {self.encoding}", place, f"{place} is not {self.encoding}")
            return
        byte, hint = f"0x{line[start]:02x}", encoding_hint(line + self._ahead())
        self.note(
            "not UTF-8",
            f"byte {start + 1:,} of the line is {byte}{hint}",
            f"byte {start + 1} of the line, {byte}, is not UTF-8{hint}",
        )

    def _ahead(self) -> bytes:
        """Some of what follows the line."""
        return self._stream.peek()[:BINARY_SAMPLE_BYTES] if isinstance(self._stream, io.BufferedReader) else b""

    def note(self, reason: str, detail: str, sentence: str, line: int | None = None) -> None:
        """Keep a fault, of this line where no other is named, unless an earlier one waits to be taken."""
        self.fault = self.fault or Fault(self.number if line is None else line, reason, detail, sentence)

    def take_fault(self) -> Fault | None:
        """The fault since this was last asked, or None."""
        fault, self.fault = self.fault, None
        return fault

    def _read_on(self, line: bytes) -> bytes:
        """The whole of a line that has more bytes than the limit, if it has no more characters, else nothing."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        blocks, characters = [line], len(decoder.decode(line))
        while characters <= self._limit and not line.endswith(b"\n"):
            line = self._stream.readline(self._limit + 1 - characters)
            if not line:
                break
            blocks.append(line)
            characters += len(decoder.decode(line))
        if characters <= self._limit or line.endswith(b"\n"):
            return b"".join(blocks)
        length = sum(map(len, blocks)) + self._skip()
        detail = f"{length:,} bytes, more than {self._limit:,} characters"
        self.note("line too long", detail, f"the line is too long: {detail}")
        return b""

    def _skip(self) -> int:
        """Read past the rest of the line without holding it; returns its bytes."""
        skipped = 0
        while block := self._stream.readline(SKIP_BYTES):
            skipped += len(block)
            if block.endswith(b"\n"):
                break
        return skipped


class _LineFeeds(io.RawIOBase):
    """A stream with a line feed for each carriage return, and for each of both."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._after_return = stream, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while block := self._stream.read(len(buffer)):
            cut = block[1:] if self._after_return and block.startswith(b"\n") else block
            self._after_return = block.endswith(b"\r")
            if cut:
                changed = cut.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                buffer[: len(changed)] = changed
                return len(changed)
        return 0


def _with_line_feeds(stream: IO[bytes]) -> IO[bytes]:
    """The stream, or one with line feeds if its first lines end in carriage returns alone."""
    sample = stream.peek(BINARY_SAMPLE_BYTES)[:BINARY_SAMPLE_BYTES] if isinstance(stream, io.BufferedReader) else b""
    if b"\n" in sample or b"\r" not in sample[:-1] or b"\0" in sample:
        return stream
    return io.BufferedReader(_LineFeeds(stream), DECOMPRESSED_BUFFER_BYTES)


def decompressed(raw: IO[bytes], path: Path) -> AbstractContextManager[io.BufferedReader]:
    """The bytes of a file. Arrow decompresses because it notices a stream that ends too early; `zstandard` does not.

    Reading what is damaged raises an OSError without a number, other than those of the system (`damage_of`).
    """
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        assert isinstance(raw, io.BufferedReader)
        return nullcontext(raw)
    return io.BufferedReader(pa.input_stream(raw, compression=compression), DECOMPRESSED_BUFFER_BYTES)


@contextmanager
def utf8_bytes(raw: IO[bytes], path: Path, encoding: str = UTF8) -> Iterator[io.BufferedReader]:
    """The decompressed bytes of a file, in UTF-8 whatever they were, as `decompressed` has them.

    A byte order mark says what they are; else they are of `encoding`, unless all of the file is UTF-8: then it is that,
    and a folder may have files of both.
    """
    with decompressed(raw, path) as stream:
        name = marked_encoding(stream.peek(BINARY_SAMPLE_BYTES))
        if not name and not is_utf8(encoding):
            with path.open("rb") as first, decompressed(first, path) as first_pass:
                name = "" if is_all_utf8(first_pass) else encoding
        yield DecodedBytes(stream, name) if name else stream


def encoding_remarks(stream: io.BufferedReader) -> list[str]:
    """What to say of a file that is not read as UTF-8, of `utf8_bytes`."""
    return [f"read as {stream.encoding.upper()}"] if isinstance(stream, DecodedBytes) else []


def damage_of(error: OSError, lines: Lines | None) -> Fault:
    """The fault of a compressed file that cannot be read beyond some line. Raises the error again if it is the
    system's: those have a number."""
    if error.errno is not None:
        raise error
    line = lines.number + 1 if lines else 0
    return Fault(line, "damaged compressed file", str(error), f"cannot be read: {error}", final=True)


def binary_fault(stream: io.BufferedReader) -> Fault | None:
    """The fault of a file that is no text by its first bytes, which stay to be read; None for text."""
    sample = stream.peek(BINARY_SAMPLE_BYTES)[:BINARY_SAMPLE_BYTES]
    if b"\0" not in sample:
        return None
    if kind := _kind_of_nul(sample):
        return Fault(1, "a NUL byte", kind, f"a NUL byte; {kind}", final=True)
    return Fault(1, "binary file", "a NUL byte in it", "a binary file: a NUL byte in it", final=True)


def _kind_of_nul(sample: bytes) -> str:
    """What text with NUL bytes looks like; empty where it looks like no text."""
    name = likely_encoding(sample)
    if not name:
        return ""
    return f"it looks like {name.upper()} without a byte order mark, {option('encoding', name)} reads it"


def uncompressed_suffix(path: Path) -> str:
    """`.csv` of `a.csv`, `a.CSV` and `a.csv.gz`; empty where there is none."""
    suffixes = (suffix.lower() for suffix in reversed(path.suffixes))
    return next((suffix for suffix in suffixes if suffix not in COMPRESSIONS), "")


def is_unicode(text: str) -> bool:
    """False for text with half a surrogate pair, which JSON can spell and no tokenizer can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
