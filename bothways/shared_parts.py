"""The parts of a result behind a URL, in the folder `URL.parts`, which machines without a common disk make together.

Each process has a folder of its own in the cache, for what it writes and what it reads at the moment. A part is
uploaded when it is complete, then its completion marker, so object stores need no rename. The result is made in the
cache as well, and uploaded by who joins; only then may the parts go (`remove`).

An upload takes its time, and behind the URL another job may begin meanwhile. So the names of a part's files have a word
of their job in them, `NUMBER-WORD.SUFFIX`: what comes too late is not of the job that is there then.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.files import user_errors
from bothways.parts import MANIFEST, NUMBER_DIGITS, OURS, TOKENIZER, Parts
from bothways.remote_files import (
    download,
    has_file,
    matches,
    place_in_cache,
    read_ranges,
    remote_files,
    remove,
    shown_url,
    upload,
    url_of,
)

MARKERS_AT_ONCE = 256  # that are read
WORD_DIGITS = 16  # hexadecimal
_PART_FILE = re.compile(rf"(\d+)-([0-9a-f]{{{WORD_DIGITS}}})\.[a-z]+")


class SharedParts(Parts):
    """The parts of a result behind `url`. out: where the result is made before it is uploaded; the rest as `Parts`."""

    def __init__(
        self,
        url: str,
        out: Path,
        side_results: Sequence[Path] = (),
        *,
        suffix: str | None = None,
        overwrite: bool = False,
    ) -> None:
        super().__init__(out, side_results, suffix=suffix, overwrite=overwrite)
        self.url = url
        self._parts_url = f"{url}.parts"
        self._word = ""  # of the job, once its manifest is read
        whole, self.folder = place_in_cache(self._parts_url, "parts", secrets.token_hex(8))
        with user_errors(self.folder):
            self.folder.mkdir(parents=True)
        weakref.finalize(self, shutil.rmtree, whole, ignore_errors=True)

    def exists(self) -> bool:
        return bool(remote_files(f"{self._parts_url}/{MANIFEST}"))

    def has_manifest(self) -> bool:
        return self.exists()

    def _discard(self) -> None:
        self.remove()

    def _require_free(self) -> None:
        """What is behind the URL is for who names the place in the cache to say; there another process may join."""

    def _is_made(self) -> bool:
        return bool(remote_files(self.url))

    def _names(self) -> list[str]:
        return list(remote_files(self._parts_url))

    def _pull(self) -> None:
        there = self._names()
        for name in (MANIFEST, TOKENIZER):
            (self.folder / name).unlink(missing_ok=True)
        self._fetch(name for name in (MANIFEST, TOKENIZER) if name in there)

    def _fetch(self, names: Iterable[str]) -> None:
        if places := {name: self.folder / name for name in names}:
            with user_errors(self.folder):
                download(self._parts_url, places)

    def _push(self, name: str) -> None:
        upload(self._parts_url, {name: self.folder / name})

    def _state_of_manifest(self) -> tuple[Any, ...]:
        found = remote_files(f"{self._parts_url}/{MANIFEST}").get("")
        return (found.size, found.tag) if found else ()

    def load(self) -> None:
        super().load()
        identity = json.dumps([self.manifest["job"], self.manifest["parts"]], sort_keys=True)
        self._word = hashlib.sha256(identity.encode()).hexdigest()[:WORD_DIGITS]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:0{NUMBER_DIGITS}d}-{self._word}{self._suffix}"

    def _is_ours_alone(self, name: str) -> bool:
        # a part that came when its job had ended counts for no other job, and goes with the next one's
        return super()._is_ours_alone(name) or bool(_PART_FILE.fullmatch(name))

    def done(self) -> set[int]:
        files: dict[int, set[str]] = {}
        for name in self._names():
            if (found := _PART_FILE.fullmatch(name)) and found[2] == self._word:
                files.setdefault(int(found[1]), set()).add(name)
        # a marker that came while its job was being removed may have lost its part
        return {number for number, names in files.items() if len(names) == 2 and self._marker_name(number) in names}

    def _marker_name(self, number: int) -> str:
        return self._path(number).with_suffix(".json").name

    def write(self, number: int, write_results: Callable[[Path], Mapping[str, Any]]) -> None:
        """As `Parts.write`; nothing of it stays on this machine."""
        super().write(number, write_results)
        path = self._path(number)
        for complete in (path, path.with_suffix(".json")):
            complete.unlink()

    def marker(self, number: int) -> dict[str, Any]:
        return next(self._read_markers([number]))

    def markers(self) -> Iterator[dict[str, Any]]:
        return self._read_markers(sorted(self.done()))

    def _read_markers(self, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        for first in range(0, len(numbers), MARKERS_AT_ONCE):
            some = numbers[first : first + MARKERS_AT_ONCE]
            urls = [f"{self._parts_url}/{self._marker_name(number)}" for number in some]
            yield from map(_marker_of, urls, read_ranges(urls, [(0, None)] * len(urls)))

    def results(self) -> list[Path]:
        """As `Parts.results`: copies of them."""
        paths = super().results()
        self._fetch(path.name for path in paths)
        return paths

    def finish(self) -> None:
        """Leave the parts until the result is uploaded."""

    def remove(self) -> None:
        """Remove the parts behind the URL, the manifest first: without it they are no job's."""
        there = [name for name in self._names() if matches(name, OURS)]
        remove(self._parts_url, sorted(there, key=lambda name: name != MANIFEST))


def begun_behind(out: object) -> str | None:
    """The URL of a result whose parts have been begun behind it; None for any other, and for a path of this machine."""
    url = url_of(out)
    return url if url is not None and has_file(f"{url}.parts", MANIFEST) else None


def _marker_of(url: str, content: bytes) -> dict[str, Any]:
    """What a completion marker holds. Raises UserError where it was cut off or is something else."""
    try:
        marker = json.loads(content)
    except ValueError:
        marker = None
    if not isinstance(marker, dict):
        raise UserError(
            f"{shown_url(url)}: cannot be read as a part's completion marker; remove it, and the same command makes "
            "the part again"
        )
    return marker
