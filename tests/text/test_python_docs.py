"""Prose from docstrings: what stays, what goes, what is counted."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from bothways.errors import UserError
from bothways.text import python_docs
from bothways.text.corpus import CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.sources import resolve_sources

MODULE = '''"""Reads and writes the files of this small module.

It knows :class:`~io.Reader` and ``Writer`` objects, and
`a link <https://example.org>`_ as well.

>>> hidden()
'the doctest'

.. note:: hidden directive

=====  =====
table  goes
=====  =====
"""

import os


class Reader:
    """A reader reads the lines of its file.

    Parameters
    ----------
    hidden : int
        After a rule the whole block goes away.
    """

    def first(self):
        """Give the first line of the file, if there is one.

        Args:
            count (int, optional): The number of lines that are read.
            - A list item is a paragraph of its own.
        """


def second():
    """A reader reads the lines of its file.

    Parameters
    ----------
    hidden : int
        After a rule the whole block goes away.
    """

    def inner():
        """The inner function has the last sentence here."""
'''


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages folder of our own and an empty standard library."""
    site, stdlib = tmp_path / "site", tmp_path / "stdlib"
    stdlib.mkdir()
    paths = {"stdlib": str(stdlib), "purelib": str(site), "platlib": str(site)}
    monkeypatch.setattr(sysconfig, "get_paths", lambda: paths)
    for name, content in {
        "pack/__init__.py": MODULE,
        "pack/broken.py": '"""A docstring."""\ndef (',
        "pack/short.py": '"""One sentence is not enough here."""',
        "pack/bare.py": "x = 1\nraise RuntimeError('nobody imports this')",
        "pack/tests/test_pack.py": MODULE,
        "pack/huge.py": '"""' + "A sentence of words. " * 100_000 + '"""',
        "single.py": MODULE.replace("reader", "writer").replace("A ", "One "),
    }.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return site


def test_prose_in_the_order_of_the_source(environment: Path) -> None:
    [module] = [module for module in python_docs.modules(["pack"]) if module.text]
    assert module.path == environment / "pack/__init__.py"
    assert module.text.splitlines() == [
        "Reads and writes the files of this small module.",
        "It knows io.Reader and Writer objects, and a link  as well.",
        "A reader reads the lines of its file.",
        "Give the first line of the file, if there is one.",
        "The number of lines that are read.",
        "A list item is a paragraph of its own.",
        "The inner function has the last sentence here.",
    ]


def test_through_the_corpus(environment: Path) -> None:
    report = CorpusReport()
    sources = resolve_sources(["python-docs:"])
    documents = list(read_documents(sources, CorpusOptions(), report))
    assert [document.source for document in documents] == [
        str(environment / "pack/__init__.py"),
        str(environment / "single.py"),
    ]
    assert report.bytes_read == sources[0].size > 2_000_000
    assert report.remarks == {
        "python-docs:": {"module that does not parse left out": (1, 3), "module larger than 2 MB left out": (1, 4)},
    }
    assert list(read_documents(sources, CorpusOptions(), CorpusReport())) == documents


def test_names_restrict(environment: Path) -> None:
    assert [module.path.name for module in python_docs.modules(["single"])] == ["single.py"]
    assert [module.path.name for module in python_docs.modules(["pack.short", "single"])] == ["short.py", "single.py"]
    for name in ("absent", "../stdlib", "pack..short"):
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            resolve_sources([f"python-docs:{name}"])


def test_the_real_standard_library() -> None:
    before = set(sys.modules)
    modules = [module for module in python_docs.modules(["argparse", "email", "json"]) if module.text]
    assert len(modules) >= 10
    assert sum(len(module.text.split()) for module in modules) > 3000
    assert not {name for name in set(sys.modules) - before if name.startswith(("argparse", "email", "json"))}
    assert not any(">>>" in module.text or "----" in module.text for module in modules)
