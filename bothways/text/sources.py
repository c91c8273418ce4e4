"""The sources that a user names → the files to read: files, folders, globs, also behind URLs, and `python-docs:`."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from bothways.errors import UserError, closest, only_in_python, option
from bothways.files import hash_file
from bothways.option_checks import in_short
from bothways.remote_files import (
    copied_each,
    local_path,
    matching_files,
    remote_files,
    shown_url,
    url_of,
)
from bothways.text import python_docs
from bothways.text.lines import COMPRESSIONS, uncompressed_suffix
from bothways.text.table_reader import TABLE_SUFFIXES

CORPUS_SUFFIXES = (".txt", ".md", *TABLE_SUFFIXES)
# Read where it is named, or a pattern ends in it; in folders of text most .json are settings.
NAMED_SUFFIXES = (*CORPUS_SUFFIXES, ".json")
PYTHON_DOCS = "python-docs:"
# By which a folder is known as a vocabulary or a model, a token store, and a run.
OUR_FILES = (("tokenizer.json", "vocab.txt"), ("manifest.json", "tokenizer"), ("metrics.jsonl", "checkpoints"))
LONGEST_NAME = 255  # of a file, in characters
Sources = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class Source:
    """One file, or, without a path, texts in memory or the Python documentation of some packages.

    path: where it is read; of a URL, which is its name, the copy. size: bytes on disk; of texts their characters.
    folder, others: on the first file of a folder or glob, its name and the files in it that are not read, as (suffix,
    how many).
    """

    name: str
    path: Path | None
    size: int
    folder: str = ""
    others: tuple[tuple[str, int], ...] = ()
    texts: tuple[Any, ...] | None = None

    @property
    def kind(self) -> str:
        """The suffix that decides how the file is read: `.csv` of `a.csv.gz`."""
        assert self.path is not None
        return uncompressed_suffix(self.path)


def resolve_sources(sources: Sources, texts: Iterable[str] | None = None) -> list[Source]:
    """The files behind what the user named: files, folders (all their files of a known suffix, in order of name),
    globs, URLs of any of these, and `python-docs:[NAME,NAME…]`; or texts, each a document, in place of them.

    Raises UserError for what does not exist, a suffix that is not known, a folder without a file to read.
    """
    named = [sources] if isinstance(sources, str | Path) else sources
    if not isinstance(named, Iterable) or isinstance(named, bytes | Mapping) or hasattr(named, "columns"):
        raise UserError(f"{option('sources')}: expected a file, a folder, a glob or several, found {in_short(named)}")
    if texts is not None:
        return [_texts_in_memory(list(named), texts)]
    found: list[Source] = []
    for entry in named:
        if not isinstance(entry, str | Path):
            raise UserError(f"{option('sources')}: expected names of files, folders or globs, found {in_short(entry)}")
        name = str(entry)
        try:
            found += _resolve(name)
        except OSError as error:
            place, reason = _shortened(str(error.filename or name)), error.strerror or error
            raise UserError(f"{place}: cannot be opened: {reason}{_texts_hint()}") from error
    if not found:
        raise UserError(f"no source{only_in_python(', and no texts')}: give files, folders, globs or python-docs:")
    return found


def _texts_in_memory(named: list[Any], texts: Iterable[str]) -> Source:
    if named:
        raise UserError(f"{option('sources')} and {option('texts')}: give one of them")
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable) or hasattr(texts, "columns"):
        raise UserError(f"{option('texts')}: expected a list of texts or a column of them, found {in_short(texts)}")
    listed = tuple(texts)
    return Source("texts", None, sum(len(text) for text in listed if isinstance(text, str)), texts=listed)


def _resolve(name: str) -> list[Source]:
    if (url := url_of(name)) is not None:
        return _resolve_url(url)
    path = local_path(name)
    name = str(path) if name != str(path) and path.is_absolute() else name
    if name.startswith(PYTHON_DOCS):
        return [Source(name, None, python_docs.size(packages(name)))]
    if path.is_dir():
        return _readable_of(name, "in this folder", _in_folder(path), CORPUS_SUFFIXES)
    if path.exists():
        if not _is_readable(path, NAMED_SUFFIXES):
            raise UserError(f"{name}: {path.suffix or 'no'} suffix; text is read from {_known_suffixes()}")
        return [_file(path)]
    if glob.has_magic(name):
        matches = sorted(Path(match) for match in glob.glob(name, recursive=True))
        suffixes = NAMED_SUFFIXES if uncompressed_suffix(Path(name)) == ".json" else CORPUS_SUFFIXES
        return _readable_of(name, "matches", [match for match in matches if match.is_file()], suffixes)
    neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(f"{_shortened(name)}: no such file or folder{closest(path.name, neighbours)}{_texts_hint()}")


def _resolve_url(url: str) -> list[Source]:
    """As `_resolve`, of what is behind a URL; the files that are read are copied."""
    pattern = glob.has_magic(url) and not url.startswith("http")  # where a `?` begins a query
    below = {} if pattern else remote_files(url)
    found = matching_files(url) if pattern else {f"{url}/{name}" if name else url: below[name] for name in below}
    if pattern and "/." not in url:  # as a shell's globs do
        found = {file: found[file] for file in found if "/." not in file}
    if not found:
        raise UserError(f"{shown_url(url)}: no {'file matches' if pattern else 'such file or folder'}")
    if "" in below and not _is_readable(Path(url), NAMED_SUFFIXES):
        raise UserError(f"{shown_url(url)}: {Path(url).suffix or 'no'} suffix; text is read from {_known_suffixes()}")
    named = "" in below or (pattern and uncompressed_suffix(Path(url)) == ".json")
    suffixes = NAMED_SUFFIXES if named else CORPUS_SUFFIXES
    urls = {Path(file): file for file in (found if pattern or "" in below else _texts_below(url, below))}
    copies = copied_each({file: found[file] for path, file in urls.items() if _is_readable(path, suffixes)})

    def source(path: Path, folder: str = "", others: tuple[tuple[str, int], ...] = ()) -> Source:
        file = urls[path]
        return Source(shown_url(file), copies[file], found[file].size, folder, others)

    if "" in below:
        return [source(Path(url))]
    where = "matches" if pattern else "in this folder"
    return _readable_of(shown_url(url), where, [*urls], suffixes, source)


def _texts_below(url: str, names: Collection[str]) -> list[str]:
    """The URLs of the files that `_in_folder` would find. names: of all files below the URL."""
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}

    def holds(folder: str, name: str) -> bool:
        return f"{folder}/{name}" in names or f"{folder}/{name}" in folders

    ours = {folder for folder in folders if folder != "." and any(all(holds(folder, n) for n in c) for c in OUR_FILES)}
    return [
        f"{url}/{name}"
        for name in names
        if not any(part.startswith(".") for part in PurePosixPath(name).parts)
        and not ours & {str(parent) for parent in PurePosixPath(name).parents}
    ]


def _shortened(name: str) -> str:
    """A name as an error quotes it: its beginning, where it is longer than any file's, as a text is."""
    return name if len(name) <= LONGEST_NAME else f"{name[:60]}…"


def _texts_hint() -> str:
    return only_in_python(f" (texts themselves go in as {option('texts')})")


def source_records(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What a record of a vocabulary or a store says of its sources: name, size, SHA-256 (None of documentation)."""
    return [{"path": source.name, "size": source.size, "sha256": _content_hash(source)} for source in sources]


def _content_hash(source: Source) -> str | None:
    if source.texts is not None:
        content = json.dumps(source.texts, default=str)
        return hashlib.sha256(content.encode(errors="replace")).hexdigest()
    return None if source.path is None else hash_file(source.path)


def packages(name: str) -> list[str]:
    """The packages in `python-docs:NAME,NAME…`; none stands for all."""
    return [package for package in name.removeprefix(PYTHON_DOCS).split(",") if package]


def _in_folder(folder: Path) -> list[Path]:
    """Every file below a folder, sorted.

    Names that begin with a dot are left out, as a shell's globs do; so are our vocabularies, stores and runs, because
    an `--out` inside the source folder must not become text.
    """

    def refuse(error: OSError) -> NoReturn:
        raise error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_ours(Path(parent, name))]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _is_ours(folder: Path) -> bool:
    """Whether a folder is a vocabulary or a model, a token store, or a run."""
    return any(all((folder / name).exists() for name in names) for names in OUR_FILES)


def _readable_of(
    name: str, where: str, paths: list[Path], suffixes: Collection[str], as_source: Callable[..., Source] | None = None
) -> list[Source]:
    """The files of these suffixes; the first has the count of the others. Raises UserError where there is none."""
    readable = [path for path in paths if _is_readable(path, suffixes)]
    if not readable:
        raise UserError(f"{name}: no file of a known suffix {where}; text is read from {_known_suffixes()}")
    others = Counter(path.suffix.lower() or "no" for path in paths if not _is_readable(path, suffixes))
    first, *rest = readable
    as_source = as_source or _file
    return [as_source(first, name, tuple(sorted(others.items()))), *map(as_source, rest)]


def _file(path: Path, folder: str = "", others: tuple[tuple[str, int], ...] = ()) -> Source:
    return Source(str(path), path, path.stat().st_size, folder, others)


def _is_readable(path: Path, suffixes: Collection[str]) -> bool:
    suffix = uncompressed_suffix(path)
    return suffix in suffixes and (suffix != ".parquet" or path.suffix.lower() == suffix)


def _known_suffixes() -> str:
    return f"{' '.join(NAMED_SUFFIXES)} (all but .parquet also with {' or '.join(COMPRESSIONS)})"
