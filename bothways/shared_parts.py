"""The parts of a result behind a URL, in the folder `URL.parts`, which machines without a common disk make together.

Each process has a folder of its own in the cache, for what it writes and what it reads at the moment. A part is
uploaded when it is complete, then its completion marker, so object stores need no rename. The result is made in the
cache as well, and uploaded by who joins; only then may the parts go (`remove`).
"""

from __future__ import annotations

import json
import secrets
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.files import user_errors
from bothways.parts import MANIFEST, OURS, TOKENIZER, Parts
from bothways.remote_files import download, matches, place_in_cache, read_ranges, remote_files, remove, upload

MARKERS_AT_ONCE = 256  # that are read


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

    def write(self, number: int, write_results: Callable[[Path], Mapping[str, Any]]) -> None:
        """As `Parts.write`; nothing of it stays on this machine."""
        super().write(number, write_results)
        path = self._path(number)
        for complete in (path, path.with_suffix(".json")):
            self._push(complete.name)
            complete.unlink()

    def marker(self, number: int) -> dict[str, Any]:
        return next(self._read_markers([number]))

    def markers(self) -> Iterator[dict[str, Any]]:
        return self._read_markers(sorted(self.done()))

    def _read_markers(self, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        for first in range(0, len(numbers), MARKERS_AT_ONCE):
            some = numbers[first : first + MARKERS_AT_ONCE]
            urls = [f"{self._parts_url}/{self._path(number).with_suffix('.json').name}" for number in some]
            yield from map(json.loads, read_ranges(urls, [(0, None)] * len(urls)))

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
