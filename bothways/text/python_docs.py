"""English prose that is on every Python user's machine: the docstrings of the standard library and installed packages.

Files are parsed with `ast` and never imported. One document a module: its docstrings in the order of the source.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.errors import UserError

SKIPPED_FOLDERS = {"test", "tests", "testing", "idlelib", "lib2to3", "turtledemo", "_vendor"}
SKIPPED_FOLDERS |= {"site-packages", "dist-packages", "__pycache__"}
LARGEST_FILE = 2_000_000  # bytes; larger ones are generated tables
FEWEST_SENTENCES = 3
MOST_HASHES = 1_000_000  # of docstrings remembered; copies of later ones are kept
_DOCSTRING = re.compile(rb'^[ \t]*[rRuU]?(?:"""|\'\'\')', re.MULTILINE)
_MARKUP = re.compile(r":[a-z:]+:`~?([^`<]*)(?:<[^>]*>)?`|``([^`]*)``|`([^`<]*)(?:<[^>]*>)?`_{0,2}|\*\*([^*]+)\*\*")
_SENTENCE_END = re.compile(r"[a-z)][.!?](\s|$)")
_NOT_PROSE = (">>>", "..", ":", "|", "+-", "$", "```", "@")
_BULLET = re.compile(r"(?:[-*+•]|\d+[.)])\s+")
_HEADING = re.compile(r"(?:[A-Z]\w+ ?){1,2}:?$")  # Args:, Returns, Other Parameters
_NUMPY_FIELD = re.compile(r"[*\w, .]+ : |\*{0,2}\w+: \w+(?:, optional)?$")  # axis : int, optional
_GOOGLE_FIELD = re.compile(r"[*`\w.]+ ?\([^()]*(?:\([^()]*\)[^()]*)*\)\s*:\s*")  # axis (int, optional): the axis …


@dataclass(frozen=True)
class Module:
    """A module's documentation. size: bytes of the file. problem: why there is none, unless for want of any."""

    path: Path
    size: int
    text: str = ""
    problem: str = ""


def size(packages: Sequence[str]) -> int:
    """Bytes of all files that `modules` will look at."""
    return sum(path.stat().st_size for path in _files(packages))


def modules(packages: Sequence[str]) -> Iterator[Module]:
    """The modules of the standard library and every installed package, or of those named, in order of path.

    A docstring seen before (inherited ones are copied a lot) is left out. Raises UserError for an unknown package.
    """
    seen: set[bytes] = set()
    for path in _files(packages):
        yield _module(path, seen)


def _files(packages: Sequence[str]) -> Iterator[Path]:
    paths = sysconfig.get_paths()
    roots = [Path(paths["stdlib"]), *sorted({Path(paths["purelib"]), Path(paths["platlib"])})]
    if not packages:
        for root in roots:
            yield from _walk(root)
        return
    for package in packages:
        parts = package.split(".")
        if not all(part.isidentifier() for part in parts):
            raise UserError(f"python-docs:{package}: {package!r} is not the name of a package or module")
        stems = [root.joinpath(*parts) for root in roots]
        places = [place for stem in stems for place in (stem, stem.with_name(f"{stem.name}.py")) if place.exists()]
        if not places:
            raise UserError(f"python-docs:{package}: no such package or module is installed here")
        yield from _walk(places[0]) if places[0].is_dir() else iter(places[:1])


def _walk(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return  # a folder we may not open holds no documentation for us
    for entry in entries:
        if entry.is_dir():
            if entry.name not in SKIPPED_FOLDERS and not entry.is_symlink():
                yield from _walk(entry)
        elif entry.suffix == ".py" and entry.is_file():
            yield entry


def _module(path: Path, seen: set[bytes]) -> Module:
    length = path.stat().st_size
    if length > LARGEST_FILE:
        return Module(path, length, problem="module larger than 2 MB left out")
    try:
        source = path.read_bytes()
        if not _DOCSTRING.search(source):  # parsing is what costs
            return Module(path, length)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return Module(path, length, problem="module that does not parse left out")
    paragraphs: list[str] = []
    for docstring in _docstrings(tree):
        key = hashlib.blake2b(docstring.encode("utf-8", "replace"), digest_size=8).digest()
        if key in seen:
            continue
        if len(seen) < MOST_HASHES:
            seen.add(key)
        paragraphs += _prose(docstring)
    text = "\n".join(paragraphs)
    if len(_SENTENCE_END.findall(text)) < FEWEST_SENTENCES:
        return Module(path, length)
    return Module(path, length, text)


def _docstrings(node: ast.AST) -> Iterator[str]:
    """The docstrings of a node and what it contains, in the order of the source."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):  # expressions hold no definitions
            yield from _docstrings(child)


def _prose(docstring: str) -> list[str]:
    """A docstring's paragraphs of English, each one line, without examples, tables, fields and markup."""
    prose = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        for paragraph in _paragraphs(block.splitlines()):
            text = _MARKUP.sub(lambda match: next(filter(None, match.groups()), ""), " ".join(paragraph))
            if _SENTENCE_END.search(text) and _is_english(text):
                prose.append(text)
    return prose


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """The paragraphs, list items and field descriptions of a block; one with an example, a table or rst has none."""
    stripped = [line.strip() for line in lines]
    if any(line.startswith(_NOT_PROSE) or _is_rule(line) for line in stripped):
        return
    paragraph: list[str] = []
    for line in stripped:
        label = _BULLET.match(line) or _GOOGLE_FIELD.match(line)
        if label or _HEADING.match(line) or _NUMPY_FIELD.match(line):
            yield paragraph
            paragraph = [line[label.end() :]] if label else []
        else:
            paragraph.append(line)
    yield paragraph


def _is_rule(line: str) -> bool:
    return len(line) > 2 and not any(character.isalnum() for character in line)


def _is_english(text: str) -> bool:
    words = text.split()
    plain = sum(word.strip(".,;:!?()\"'").isalpha() and word.isascii() for word in words)
    return len(words) >= 4 and plain >= 0.75 * len(words)
