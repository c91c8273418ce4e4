"""Shards of a token store behind a URL: of each only the chunks that are asked for are read, once a machine.

The end of an Arrow file says where its record batches lie (the Footer of Arrow's Columnar Format, "IPC File Format").
They are fetched as ranges of bytes, those of a block of the plan all at once, and kept as files in the cache under the
shard's SHA-256, so a store that was made again under the same URL is not mixed with the one before.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from bothways.errors import UserError, command
from bothways.files import user_errors
from bothways.remote_files import locked, place_in_cache, read_ranges, shown_url

END_BYTES = 1 << 16  # of a file, read at first: the places of 2,700 chunks, ten times a shard's
MAGIC = b"ARROW1"
TRAILER_BYTES = 4 + len(MAGIC)  # the footer's length, and the magic
_BLOCK = np.dtype([("offset", "<i8"), ("metadata", "<i4"), ("padding", "<i4"), ("body", "<i8")])
_BATCHES_SLOT = 3  # of the fields of a Footer


class RemoteShards:
    """The chunks of shards by number, counted through all of them.

    url: of the store. shards: file and SHA-256 of each. schema: of all. Raises UserError for what cannot be read, and
    for what is no Arrow file.
    """

    def __init__(self, url: str, shards: Sequence[tuple[str, str]], schema: pa.Schema) -> None:
        self._schema, self._folders = schema, []
        self._chunks: list[tuple[int, int, int]] = []  # shard, first byte, end
        self._urls = [f"{url}/{file}" for file, _ in shards]
        self._lock = place_in_cache(url, "chunks")[0]
        for shard_url, (_, sha256) in zip(self._urls, shards, strict=True):
            self._folders.append(place_in_cache(shard_url, "chunks", sha256)[0])
        for number, footer in enumerate(self._footers()):
            self._chunks += [(number, first, end) for first, end in _blocks(footer)]

    def __len__(self) -> int:
        return len(self._chunks)

    def _footers(self) -> list[bytes]:
        """The footer of each shard, from the cache where it is there."""
        with locked(self._lock), user_errors(self._lock.parent):
            paths = [folder / "footer" for folder in self._folders]
            missing = [number for number, path in enumerate(paths) if not path.exists()]
            for number, footer in zip(missing, self._fetch_footers(missing), strict=True):
                _write(paths[number], footer)
            return [path.read_bytes() for path in paths]

    def _fetch_footers(self, numbers: Sequence[int]) -> list[bytes]:
        urls = [self._urls[number] for number in numbers]
        ends = read_ranges(urls, [(-END_BYTES, None)] * len(urls))
        sizes = [_footer_bytes(end, url) for end, url in zip(ends, urls, strict=True)]
        for i, size in enumerate(sizes):
            if size > len(ends[i]):  # of more chunks than a shard of ours has
                ends[i] = read_ranges([urls[i]], [(-size, None)])[0]
        return [end[-size:-TRAILER_BYTES] for end, size in zip(ends, sizes, strict=True)]

    def batches(self, indexes: Sequence[int]) -> list[pa.RecordBatch]:
        """The record batches of chunks, in the order asked for."""
        paths = [self._path(index) for index in indexes]
        if any(not path.exists() for path in paths):
            with locked(self._lock), user_errors(self._lock.parent):
                self._fetch([(index, path) for index, path in zip(indexes, paths, strict=True) if not path.exists()])
        return [pa.ipc.read_record_batch(pa.ipc.read_message(pa.memory_map(str(path))), self._schema) for path in paths]

    def _path(self, index: int) -> Path:
        shard, first, _ = self._chunks[index]
        return self._folders[shard] / f"{first:012d}.chunk"

    def _fetch(self, missing: Sequence[tuple[int, Path]]) -> None:
        chunks = [self._chunks[index] for index, _ in missing]
        urls = [self._urls[shard] for shard, _, _ in chunks]
        found = read_ranges(urls, [(first, end) for _, first, end in chunks])
        for content, url, (_, path), (_, first, end) in zip(found, urls, missing, chunks, strict=True):
            if len(content) != end - first:
                raise _unreadable(url, f"{len(content):,} bytes of {end - first:,} came")
            _write(path, content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _unreadable(url: str, reason: str) -> UserError:
    return UserError(f"{shown_url(url)}: the shard cannot be read ({reason}); run {command('prepare')} again")


def _footer_bytes(end: bytes, url: str) -> int:
    """How many of a file's last bytes are the footer and what follows it. end: of the file."""
    if len(end) < TRAILER_BYTES or not end.endswith(MAGIC):
        raise _unreadable(url, "not an Arrow file")
    return int(struct.unpack_from("<i", end, len(end) - TRAILER_BYTES)[0]) + TRAILER_BYTES


def _blocks(footer: bytes) -> list[tuple[int, int]]:
    """First byte and end of each record batch's message, by a Footer, which is a FlatBuffers table."""
    (table,) = struct.unpack_from("<I", footer)
    fields = table - struct.unpack_from("<i", footer, table)[0]
    (field,) = struct.unpack_from("<H", footer, fields + 4 + 2 * _BATCHES_SLOT)
    vector = table + field
    vector += struct.unpack_from("<I", footer, vector)[0]
    blocks = np.frombuffer(footer, _BLOCK, struct.unpack_from("<I", footer, vector)[0], vector + 4)
    ends = blocks["offset"] + blocks["metadata"] + blocks["body"]
    return list(zip(blocks["offset"].tolist(), ends.tolist(), strict=True))
