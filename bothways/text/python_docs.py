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

# Folders whose docstrings are notes of programmers to themselves or copies of others,
SKIPPED_FOLDERS = {"test", "tests", "testing", "idlelib", "lib2to3", "turtledemo", "_vendor"}
# and those that are roots of their own or hold no sources.
SKIPPED_FOLDERS |= {"site-packages", "dist-packages", "__pycache__"}
MAX_FILE_BYTES = 2_000_000  # larger files are generated tables, and slow to parse
MIN_SENTENCES = 3  # of a document: a pair of sentences needs two, and less than three is a title
MAX_HASHES = 1_000_000  # of docstrings seen, a bound on memory; copies of later docstrings are not noticed
MIN_WORDS = 4  # of a paragraph; less is a heading
MIN_PLAIN_SHARE = 0.75  # of a paragraph's words are ASCII letters; code and other languages have fewer
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
    """A module's documentation.

    size: bytes of the file. text: empty where there is no prose. problem: why the file was not read, else empty.
    """

    path: Path
    size: int
    text: str = ""
    problem: str = ""


def size(packages: Sequence[str]) -> int:
    """Bytes of all files that `modules` reads."""
    return sum(path.stat().st_size for path in _files(packages))


def modules(packages: Sequence[str]) -> Iterator[Module]:
    """Yields the modules of the standard library and of installed packages, or of the packages named, in path order.

    A docstring seen before is left out, since inherited docstrings are often copied. Raises UserError for an unknown
    package.
    """
    seen: set[bytes] = set()
    for path in _files(packages):
        yield _module(path, seen)


def _files(packages: Sequence[str]) -> Iterator[Path]:
    installed = sysconfig.get_paths()
    roots = [Path(installed["stdlib"]), *sorted({Path(installed["purelib"]), Path(installed["platlib"])})]
    if not packages:
        for root in roots:
            yield from _walk(root)
        return
    for package in packages:
        names = package.split(".")
        if not all(name.isidentifier() for name in names):
            raise UserError(f"python-docs:{package}: {package!r} is not the name of a package or module")
        stems = [root.joinpath(*names) for root in roots]
        paths = [path for stem in stems for path in (stem, stem.with_name(f"{stem.name}.py")) if path.exists()]
        if not paths:
            raise UserError(f"python-docs:{package}: no such package or module is installed here")
        yield from _walk(paths[0]) if paths[0].is_dir() else iter(paths[:1])


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
    if length > MAX_FILE_BYTES:
        return Module(path, length, problem="module larger than 2 MB left out")
    try:
        source = path.read_bytes()
        if not _DOCSTRING.search(source):  # much cheaper than parsing
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
        if len(seen) < MAX_HASHES:
            seen.add(key)
        paragraphs += _prose(docstring)
    text = "\n".join(paragraphs)
    if len(_SENTENCE_END.findall(text)) < MIN_SENTENCES:
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
    """The paragraphs, list items and field descriptions of a block; none where it has an example, a table or rst."""
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
    """Whether a line is drawn, like `=====`."""
    return len(line) > 2 and not any(character.isalnum() for character in line)


def _is_english(text: str) -> bool:
    """Whether a paragraph has `MIN_WORDS`, and enough of them are plain."""
    words = text.split()
    plain = sum(word.strip(".,;:!?()\"'").isalpha() and word.isascii() for word in words)
    return len(words) >= MIN_WORDS and plain >= MIN_PLAIN_SHARE * len(words)
