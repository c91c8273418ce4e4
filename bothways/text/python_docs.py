"""English prose that is on every Python user's machine: the docstrings of the standard library and installed packages.

Files are parsed with `ast` and never imported. One document a module: its docstrings in the order of the source.
"""

from __future__ import annotations

import ast
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.errors import UserError

SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "_vendor",
    "site-packages",
    "__pycache__",
}
LARGEST_FILE = 2_000_000  # bytes; larger ones are generated tables
FEWEST_SENTENCES = 3
_MARKUP = re.compile(r":[a-z:]+:`~?([^`<]*)(?:<[^>]*>)?`|``([^`]*)``|`([^`]*)`_?|\*\*([^*]+)\*\*")
_SENTENCE_END = re.compile(r"[a-z)][.!?](\s|$)")


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
    """The modules of the standard library and every installed package, or of the packages named, in order of path.

    A docstring seen before (inherited ones are copied a lot) is left out. Raises UserError for an unknown package.
    """
    seen: set[int] = set()
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
        places = [place for root in roots for place in (root / package, root / f"{package}.py") if place.exists()]
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


def _module(path: Path, seen: set[int]) -> Module:
    length = path.stat().st_size
    if length > LARGEST_FILE:
        return Module(path, length, problem="module larger than 2 MB left out")
    try:
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:  # parsing is what costs; most generated files stop here
            return Module(path, length)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, OSError):
        return Module(path, length, problem="module that does not parse left out")
    paragraphs = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring and hash(docstring) not in seen:
                seen.add(hash(docstring))
                paragraphs += _prose(docstring)
    text = "\n".join(paragraphs)
    return Module(path, length, text if len(_SENTENCE_END.findall(text)) >= FEWEST_SENTENCES else "")


def _prose(docstring: str) -> list[str]:
    """A docstring's paragraphs of English, each one line, without examples, tables, fields and markup."""
    prose = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = [line.strip() for line in block.splitlines()]
        if any(line.startswith((">>>", "..", ":", "|", "+-", "$", "```")) or _is_rule(line) for line in lines):
            continue
        joined = _MARKUP.sub(
            lambda match: next(group for group in match.groups() if group is not None), " ".join(lines)
        )
        if _SENTENCE_END.search(joined) and _is_english(joined):
            prose.append(joined)
    return prose


def _is_rule(line: str) -> bool:
    return len(line) > 2 and not any(character.isalnum() for character in line)


def _is_english(text: str) -> bool:
    words = text.split()
    plain = sum(word.strip(".,;:!?()\"'").isalpha() and word.isascii() for word in words)
    return len(words) >= 4 and plain >= 0.75 * len(words)
