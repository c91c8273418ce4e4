"""Every benchmark script imports, and what it takes of Bothways exists: nothing else would tell of a renamed name."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
# What a script may import at its top and the machine lack; the script's test is skipped then.
PEERS = {"blingfire", "datasets", "litserve", "onnxruntime", "openvino", "psutil", "pysbd", "sentencex", "transformers"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_imports(name: str, scripts_folder: Path) -> None:
    assert name not in sys.modules
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in PEERS:
            raise
        pytest.skip(f"{error.name} is not on this machine")
    assert module.__file__ == str(scripts_folder / f"{name}.py")


@pytest.mark.parametrize("name", SCRIPTS)
def test_names_that_a_benchmark_takes_of_others_exist(name: str, scripts_folder: Path) -> None:
    """Imports in functions as well, which run only when the function does, and a peer's name that is missing."""
    for module, imported in taken_names((scripts_folder / f"{name}.py").read_text()):
        if module.partition(".")[0] in {"bothways", "transformers"}:
            assert hasattr(importlib.import_module(module), imported), f"{module} has no {imported}"


def test_taken_names_are_those_of_functions_and_of_a_module_by_its_alias() -> None:
    source = "import bothways as bw\n\ndef f():\n    from bothways.errors import UserError as E\n    return bw.load"
    assert set(taken_names(source)) == {("bothways.errors", "UserError"), ("bothways", "load")}


def taken_names(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each `from module import name`, and of each `alias.name` of a module that has an alias."""
    nodes = list(ast.walk(ast.parse(source)))
    aliases = {
        alias.asname: alias.name
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname is not None
    }
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield aliases[node.value.id], node.attr
