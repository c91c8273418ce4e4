"""Outputs behind URLs. Object stores have no rename and no append, so an output is made in its *mirror*, a folder of
the cache, and uploaded from there: files first, then those that make a folder count as complete (`FOLDER_MARKERS`).

What is behind the URL is the truth: a mirror begins as a copy of it. Only where a mirror was left by a job that was
killed, and nobody else has worked on the output since, does the work go on with what the mirror has. Beside each mirror
is a record of what was there when both were last the same; behind the URL a small file, `WRITER`, says who writes.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bothways.errors import UserError, option
from bothways.files import read_json, user_errors, write_json
from bothways.remote_files import (
    RemoteFile,
    copied,
    download,
    local_path,
    locked,
    matches,
    place_in_cache,
    read_ranges,
    remote_files,
    remove,
    shown_url,
    upload,
    url_of,
)

# A folder without its marker is no model, checkpoint, store or vocabulary; in the order in which they are written.
FOLDER_MARKERS = ("tokenizer.json", "config.json", "state.json", "manifest.json")
WRITER = ".bothways-writer"  # holds the word of the job that writes there, drawn by chance
_CHECKPOINT = re.compile(r"(checkpoints/step-\d+)/.*")


class OutputMirror:
    """The local folder of an output behind a URL. path: of the folder. names: patterns of what such an output may hold,
    its files and folders; anything else behind the URL is not looked at."""

    def __init__(self, url: str, names: Sequence[str] = ("*",)) -> None:
        self.url, self._names = url, tuple(names)
        self.word = secrets.token_hex(8)
        folder, self.path = place_in_cache(url, "mirror")
        self._folder, self._record_path = folder, folder / "record.json"

    def pull(self, *, to_write: bool = True, only_ours: bool = False) -> None:
        """Make the folder what is behind the URL, without checkpoints that were not written to their end; unless it is
        ahead of that, by a job that was killed here. Of several processes of a machine one works, the others wait.

        to_write: from now on the job that pushes is this one, which also shows that it can write. Raises UserError for
        what is behind the URL and is a file, or something else than such an output (only_ours: beside it, too), and
        where it cannot be read or written.
        """
        with locked(self._folder), user_errors(self._folder):
            self.path.mkdir(parents=True, exist_ok=True)
            everything = remote_files(self.url)
            self._refuse_foreign(everything, only_ours)
            there, record = self._ours(everything), self._record()
            if not self._is_ahead(there, record):
                self._copy(_without_unfinished(there), record)
            if to_write:
                self._claim()

    def copy_to_look_at(self) -> Path:
        """A copy of what is behind the URL, which leaves the folder to those who write. Raises UserError as `pull`."""
        everything = remote_files(self.url)
        self._refuse_foreign(everything, only_ours=False)
        return copied(self.url, _without_unfinished(self._ours(everything)))

    def _refuse_foreign(self, files: dict[str, RemoteFile], only_ours: bool) -> None:
        name, cure = shown_url(self.url), f"choose another {option('out')}"
        if "" in files:
            raise UserError(f"{name}: is a file, not a folder; {cure}")
        found = {file.partition("/")[0] for file in files if not file.startswith(".")}
        foreign = sorted(entry for entry in found if not matches(entry, self._names))
        if foreign and (only_ours or len(foreign) == len(found)):
            raise UserError(f"{name} holds something else ({', '.join(foreign[:3])}); {cure}")

    def _claim(self) -> None:
        path = self._folder / WRITER
        path.write_text(self.word, encoding="ascii")
        upload(self.url, {WRITER: path})

    def _copy(self, there: dict[str, RemoteFile], record: dict[str, Any]) -> None:
        """Make the folder what is `there`, of which what is here already stays."""
        for name, path in self._local().items():
            if name not in there:
                path.unlink()
        changed = [name for name, file in there.items() if not self._is_same(name, file, record["files"])]
        partial = {name: self._folder / "partial" / name for name in changed}
        download(self.url, partial)
        for name, path in partial.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(self.path / name)
        shutil.rmtree(self._folder / "partial", ignore_errors=True)
        _remove_empty_folders(self.path)
        self._write_record(there)

    def push(self) -> None:
        """Upload what is new or has changed, and remove behind the URL what was removed here.

        A folder whose content changes has no marker until all of it is there, and what is removed is so in the end.
        Raises UserError where it cannot be written, and where another job has begun to write there since `pull`.
        """
        record, there, here = self._record(), self._there(), self._local()
        if self._writer() != self.word:
            raise UserError(
                f"{shown_url(self.url)}: another process has begun to write there; choose another {option('out')}"
            )
        known = {*record["files"], *record["pushing"]}
        changed = [n for n in here if n not in there or not self._is_same(n, there[n], record["files"])]
        unfinished = set(there) - set(_without_unfinished(there))
        gone = [n for n in there if n not in here and (n in known or n in unfinished)]
        open_markers = [n for n in there if n in here and _is_marker(n) and _is_of_changed(n, {*changed, *gone})]
        changed = list(dict.fromkeys([*changed, *open_markers]))
        if not changed and not gone:
            return
        write_json(self._record_path, {**record, "pushing": sorted({*changed, *gone, *record["pushing"]})})
        remove(self.url, open_markers)
        upload(self.url, {name: here[name] for name in changed if not _is_marker(name)})
        for name in sorted(filter(_is_marker, changed), key=_marker_order):
            upload(self.url, {name: here[name]})
        remove(self.url, sorted(gone, key=_is_marker, reverse=True))
        self._write_record(self._there())

    def release(self) -> None:
        """Leave no trace behind the URL of who wrote there: the output is complete."""
        remove(self.url, [WRITER])

    def _there(self) -> dict[str, RemoteFile]:
        """The output's files behind the URL."""
        return self._ours(remote_files(self.url))

    def _ours(self, files: dict[str, RemoteFile]) -> dict[str, RemoteFile]:
        """Of files behind the URL those of the output, without hidden ones."""
        ours = (name for name in files if "/." not in f"/{name}" and matches(name.partition("/")[0], self._names))
        return {name: files[name] for name in ours}

    def _writer(self) -> str:
        """The word of the job that writes behind the URL; nothing where there is none."""
        url = f"{self.url}/{WRITER}"
        return read_ranges([url], [(0, None)])[0].decode(errors="replace") if remote_files(url) else ""

    def _local(self) -> dict[str, Path]:
        """The files of the folder by their names in it, without what is being written."""
        found = {}
        for parent, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    path = Path(parent, name)
                    found[path.relative_to(self.path).as_posix()] = path
        return dict(sorted(found.items()))

    def _record(self) -> dict[str, Any]:
        """files: by name what a file was here and there when both were the same. pushing: names that an upload, which
        did not come to its end, was to change."""
        empty: dict[str, Any] = {"files": {}, "pushing": []}
        return read_json(self._record_path) if self._record_path.exists() else empty

    def _write_record(self, there: dict[str, RemoteFile]) -> None:
        here = self._local()
        files = {
            name: {"here": _state(here[name]), "there": [file.size, file.tag]}
            for name, file in there.items()
            if name in here
        }
        write_json(self._record_path, {"files": files, "pushing": []})

    def _is_same(self, name: str, file: RemoteFile, files: dict[str, Any]) -> bool:
        """Whether a file is here what it is there, as far as the record knows."""
        path = self.path / name
        known = files.get(name)
        return known == {"here": _state(path), "there": [file.size, file.tag]} if known and path.exists() else False

    def _is_ahead(self, there: dict[str, RemoteFile], record: dict[str, Any]) -> bool:
        """Whether the folder has all that is behind the URL or more, and nobody else has worked there since."""
        word = self._folder / WRITER
        if not word.exists() or word.read_text(encoding="ascii") != self._writer():
            return False
        ours = set(record["pushing"])
        before = {name: entry["there"] for name, entry in record["files"].items() if name not in ours}
        now = {name: [file.size, file.tag] for name, file in there.items() if name not in ours}
        return before == now and bool(self._local())


def _state(path: Path) -> list[int]:
    """What tells a local file's content from another's: its size and time of change."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _is_marker(name: str) -> bool:
    return name.rpartition("/")[2] in FOLDER_MARKERS


def _marker_order(name: str) -> tuple[int, int]:
    """Inner folders first."""
    return -name.count("/"), FOLDER_MARKERS.index(name.rpartition("/")[2])


def _is_of_changed(marker: str, changed: set[str]) -> bool:
    """Whether another file of the marker's folder changes."""
    folder = marker[: len(marker) - len(marker.rpartition("/")[2])]
    return any(name.startswith(folder) and name != marker for name in changed)


def _without_unfinished(files: dict[str, RemoteFile]) -> dict[str, RemoteFile]:
    """The files without those of checkpoints that have no state.json, which is written last."""
    steps = {match[1] for name in files if (match := _CHECKPOINT.fullmatch(name))}
    torn = tuple(f"{step}/" for step in steps if f"{step}/state.json" not in files)
    return {name: file for name, file in files.items() if not name.startswith(torn)} if torn else files


def _remove_empty_folders(root: Path) -> None:
    for parent, _, _ in os.walk(root, topdown=False):
        if Path(parent) != root:
            with contextlib.suppress(OSError):  # not empty
                Path(parent).rmdir()


@contextlib.contextmanager
def output_folder(out: str | Path, names: Sequence[str] = ("*",), *, only_ours: bool = True) -> Iterator[Path]:
    """The folder to work in for `out`: itself, or its mirror, which is uploaded when the block ends well.

    names, only_ours: as `OutputMirror` and its `pull` have them; what a folder of this machine holds is for the caller.
    """
    url = url_of(out)
    if url is None:
        yield local_path(out)
        return
    mirror = OutputMirror(url, names)
    mirror.pull(only_ours=only_ours)
    yield mirror.path
    mirror.push()
    mirror.release()


def output_as_it_is(out: str | Path, names: Sequence[str] = ("*",)) -> Path:
    """The folder `out` to look at: itself, or a copy of what is behind the URL. names: as `OutputMirror` has them."""
    url = url_of(out)
    return local_path(out) if url is None else OutputMirror(url, names).copy_to_look_at()


def new_output_file(out: str | Path, *, overwrite: bool = False) -> Path:
    """The file to write for `out`: itself, or one of the cache, in which another process may be at work. Raises
    UserError where it is there already behind the URL, without `overwrite`."""
    url = url_of(out)
    if url is None:
        return local_path(out)
    _, place = place_in_cache(url, "output")
    if remote_files(url) and not overwrite:
        cure = f"{option('overwrite', True)} replaces it, or choose another {option('out')}"
        raise UserError(f"{option('out')}: {shown_url(url)} is there already; {cure}")
    with user_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    return place


@contextlib.contextmanager
def output_file(out: str | Path, *, overwrite: bool = False, side_suffixes: Sequence[str] = ()) -> Iterator[Path]:
    """The file to write for `out`: itself, or one of the cache, which is uploaded when the block ends well, with what
    lies beside it under its name and a suffix (`OUT.bad.jsonl`). side_suffixes: of such files; one that is behind the
    URL, and that the new output has not, is removed.

    Raises UserError, at the beginning, where it is there already behind the URL, without `overwrite`.
    """
    url = url_of(out)
    place = new_output_file(out, overwrite=overwrite)
    if url is None:
        yield place
        return
    with user_errors(place):
        for old in _side_files(place):
            old.unlink()
    yield place
    folder = url.rpartition("/")[0]
    beside = {path.name: path for path in _side_files(place) if path != place}
    upload(folder, beside)
    remove(folder, [name for suffix in side_suffixes if (name := f"{url.rpartition('/')[2]}{suffix}") not in beside])
    upload(url, {"": place})


def _side_files(place: Path) -> list[Path]:
    """A file, and those beside it whose names begin with its own."""
    return [path for path in place.parent.glob("*") if path.is_file() and f"{path.name}.".startswith(f"{place.name}.")]
