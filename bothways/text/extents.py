"""Files cut into extents that are read by themselves, in any order, on any machine, and give what the whole file gives.

An extent of plain text is a range of bytes that begins where a line, a record or a document begins; of Parquet it is a
range of rows. Where no such places are known without reading all before them the file is one extent: compressed files,
those in other encodings than UTF-8, .json. Extents depend on the file and on the sizes alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bothways.text.encodings import BINARY_SAMPLE_BYTES, is_all_utf8, is_utf8, marked_encoding
from bothways.text.lines import COMPRESSIONS

SCAN_BYTES = 1 << 20  # read at a time
CANDIDATE_ROWS = 16  # rows between two places where a table of quoted fields may be cut


@dataclass(frozen=True)
class Extent:
    """What is read of a file at a time.

    start, end: bytes, or where `by_rows` rows from 0; end None: the end of the file. line: the number of the first
    line, from 1. rows: how many there are at most; 0 where that is not known. first, last: whether the file begins, and
    ends, with it.
    """

    start: int = 0
    end: int | None = None
    line: int = 1
    rows: int = 0
    first: bool = True
    last: bool = True
    by_rows: bool = False

    @property
    def is_whole(self) -> bool:
        return self.end is None

    def to_json(self) -> dict[str, Any]:
        """The fields that are not the defaults."""
        whole = Extent()
        return {name: value for name, value in vars(self).items() if value != getattr(whole, name)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Extent:
        """The extent of `to_json`."""
        return cls(**values)


WHOLE = Extent()


@dataclass(frozen=True)
class ExtentSize:
    """When an extent is large enough: at `bytes_` bytes with at least `least_rows` rows, at `most_rows` rows, or at
    `most_bytes` bytes."""

    bytes_: int
    least_rows: int = 1
    most_rows: int = 1 << 62
    most_bytes: int = 1 << 62

    def is_full(self, rows: int, size: int) -> bool:
        """Whether an extent of so many rows and bytes is large enough."""
        return (size >= self.bytes_ and rows >= self.least_rows) or rows >= self.most_rows or size >= self.most_bytes


class _Range(io.RawIOBase):
    """The bytes of an open file up to an end."""

    def __init__(self, raw: IO[bytes], end: int) -> None:
        self._raw, self._end = raw, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._raw.read(min(len(buffer), max(0, self._end - self._raw.tell())))
        buffer[: len(block)] = block
        return len(block)


def extent_stream(raw: IO[bytes], extent: Extent) -> io.BufferedReader:
    """The bytes of an extent by bytes that is not a whole file. raw: the file, opened."""
    assert extent.end is not None
    raw.seek(extent.start)
    return io.BufferedReader(_Range(raw, extent.end), SCAN_BYTES)


def is_plain_utf8(path: Path, encoding: str) -> bool:
    """Whether a file's bytes are lines of UTF-8 as they lie: not compressed, in no other encoding, not binary by its
    first bytes, with line feeds at the ends of its lines. encoding: what the user says it is."""
    if path.suffix.lower() in COMPRESSIONS:
        return False
    with path.open("rb") as file:
        sample = file.read(BINARY_SAMPLE_BYTES)
        if marked_encoding(sample) or b"\0" in sample or (b"\r" in sample[:-1] and b"\n" not in sample):
            return False
        if not is_utf8(encoding):
            file.seek(0)
            return is_all_utf8(file)
    return True


def cut_lines(path: Path, size: ExtentSize, after: Callable[[bytes], bool] | None = None) -> list[Extent]:
    """Extents that begin at lines. after: whether an extent may end with this line; None: with any."""
    extents: list[Extent] = []
    with path.open("rb") as file:
        for lengths in _line_lengths(file, min(size.bytes_, SCAN_BYTES), after):
            _add_extents(extents, lengths, size)
    return _marked(extents)


def _line_lengths(
    file: IO[bytes], block_bytes: int, after: Callable[[bytes], bool] | None
) -> Iterator[tuple[np.ndarray, bool]]:
    """The bytes of lines, a block of them at a time, and whether an extent may end with the block only."""
    while block := file.read(SCAN_BYTES if after is None else block_bytes):
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
        lengths = np.diff(ends, prepend=0)
        rest = len(block) - int(ends[-1] if len(ends) else 0)
        if rest:
            lengths = np.append(lengths, rest + _rest_of_line(file))
        if after is not None:
            lengths = np.append(lengths, list(_lines_until(file, after)))
        yield lengths.astype(np.int64), after is not None


def _rest_of_line(file: IO[bytes]) -> int:
    """Read to the end of a line without holding it; returns the bytes."""
    size = 0
    while block := file.readline(SCAN_BYTES):
        size += len(block)
        if block.endswith(b"\n"):
            break
    return size


def _lines_until(file: IO[bytes], after: Callable[[bytes], bool]) -> Iterator[int]:
    """The bytes of the lines up to one after which an extent may end."""
    while line := file.readline(SCAN_BYTES):
        ended = line.endswith(b"\n")
        yield len(line) + (0 if ended else _rest_of_line(file))
        if ended and after(line):
            break


def _add_extents(extents: list[Extent], block: tuple[np.ndarray, bool], size: ExtentSize) -> None:
    """Let the last extent grow by the lines of a block, or begin others; an extent has `last` where it may grow."""
    lengths, only_at_its_end = block
    first = 0
    while first < len(lengths):
        open_extent = extents.pop() if extents and extents[-1].last else _next_extent(extents)
        assert open_extent.end is not None
        rows, held = open_extent.rows, open_extent.end - open_extent.start
        end = len(lengths) if only_at_its_end else first + _lines_to_fill(lengths[first:], rows, held, size)
        rows, held = rows + end - first, held + int(lengths[first:end].sum())
        full = size.is_full(rows, held)
        extents.append(Extent(open_extent.start, open_extent.start + held, open_extent.line, rows, last=not full))
        first = end


def _next_extent(extents: Sequence[Extent]) -> Extent:
    """An empty extent behind the others."""
    if not extents:
        return Extent(0, 0)
    before = extents[-1]
    assert before.end is not None
    return Extent(before.end, before.end, before.line + before.rows)


def _lines_to_fill(lengths: np.ndarray, rows: int, held: int, size: ExtentSize) -> int:
    """How many of the lines an extent takes, which has rows and bytes already."""
    sizes = held + np.cumsum(lengths)

    def first_at(number_of_bytes: int) -> int:
        return int(np.searchsorted(sizes, number_of_bytes)) + 1

    filled = max(first_at(size.bytes_), size.least_rows - rows)
    return max(1, min(len(lengths), filled, size.most_rows - rows, first_at(size.most_bytes)))


def _marked(extents: Sequence[Extent]) -> list[Extent]:
    """The extents of a file, the first and the last told from the others; one that is all of it is `WHOLE`."""
    count = len(extents)
    if not extents or (count == 1 and extents[0].start == 0 and extents[0].line == 1):
        return [replace(WHOLE, rows=extents[0].rows if extents else 0)]
    return [replace(extent, first=number == 0, last=number == count - 1) for number, extent in enumerate(extents)]


def cut_at(path: Path, places: Iterable[tuple[int, int]], size: ExtentSize) -> list[Extent]:
    """Extents that begin at some of these places: numbers of lines, ascending, each with the rows before it. The first
    place is where the first extent begins."""
    lines, rows_before = (np.array(column, np.int64) for column in zip(*places, strict=True))
    offsets, total = _offsets_of(path, lines)
    extents: list[Extent] = []
    begin = 0
    for place in range(1, len(lines)):
        rows, held = int(rows_before[place] - rows_before[begin]), int(offsets[place] - offsets[begin])
        if size.is_full(rows, held):
            extents.append(Extent(int(offsets[begin]), int(offsets[place]), int(lines[begin]), rows))
            begin = place
    rows = int(rows_before[-1] - rows_before[begin]) + CANDIDATE_ROWS
    return _marked([*extents, Extent(int(offsets[begin]), total, int(lines[begin]), rows)])


def _offsets_of(path: Path, lines: np.ndarray) -> tuple[np.ndarray, int]:
    """Where lines begin, in bytes, and the bytes of the file. lines: their numbers from 1, ascending."""
    offsets = np.zeros(len(lines), np.int64)
    read = ended = found = 0
    with path.open("rb") as file:
        while block := file.read(SCAN_BYTES):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
            upto = int(np.searchsorted(lines, ended + len(ends) + 1, side="right"))
            wanted = lines[found:upto] - 2 - ended  # the line end before line n is number n - 2, from 0
            offsets[found:upto] = np.where(lines[found:upto] == 1, 0, read + 1 + ends[np.maximum(wanted, 0)]
                                           if len(ends) else 0)  # fmt: skip
            found, ended, read = upto, ended + len(ends), read + len(block)
    return offsets, read


def cut_parquet(path: Path, size: ExtentSize) -> list[Extent]:
    """Ranges of rows, none of two row groups; a row group is cut where its rows are large or many. A file that cannot
    be read, or has two columns of a name, is one extent, for its reader to say so."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return [WHOLE]
    names = metadata.schema.to_arrow_schema().names
    if len({*names}) < len(names):
        return [WHOLE]
    extents: list[Extent] = []
    begin = end = held = 0
    for group in range(metadata.num_row_groups):
        described = metadata.row_group(group)
        rows, row_bytes = described.num_rows, described.total_byte_size / max(1, described.num_rows)
        if size.is_full(rows, described.total_byte_size):
            if end > begin:
                extents.append(Extent(begin, end, rows=end - begin, by_rows=True))
            begin, held = end, 0
            step = _rows_of(size, row_bytes)
            for first in range(begin, begin + rows, step):
                upto = min(first + step, begin + rows)
                extents.append(Extent(first, upto, rows=upto - first, by_rows=True))
            begin = end = end + rows
            continue
        end, held = end + rows, held + described.total_byte_size
        if size.is_full(end - begin, held):
            extents.append(Extent(begin, end, rows=end - begin, by_rows=True))
            begin, held = end, 0
    if end > begin:
        extents.append(Extent(begin, end, rows=end - begin, by_rows=True))
    return _marked(extents)


def _rows_of(size: ExtentSize, row_bytes: float) -> int:
    """The rows of a full extent, by the mean size of a row."""
    rows = max(size.least_rows, int(size.bytes_ / max(1.0, row_bytes)))
    return max(1, min(rows, size.most_rows, int(size.most_bytes / max(1.0, row_bytes))))


def cut_rows(sizes: Iterable[int], size: ExtentSize) -> list[Extent]:
    """Ranges of rows that are read one after the other. sizes: of each row, about, in bytes."""
    extents: list[Extent] = []
    begin = number = held = 0
    for number, of_row in enumerate(sizes, 1):
        held += of_row
        if size.is_full(number - begin, held):
            extents.append(Extent(begin, number, rows=number - begin, by_rows=True))
            begin, held = number, 0
    if number > begin:
        extents.append(Extent(begin, number, rows=number - begin, by_rows=True))
    return _marked(extents)
