"""What a test replaces is something the code reads: to replace a misspelt or merely imported name proves nothing."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READ_BY_PYTHON = {"argtypes", "restype", "__class__"}  # by ctypes, and by `type`
READ_BY_PYTHON |= {"optionxform", "whitespace_split", "INITIAL_NO_AUTH_ACTION_COUNT"}  # by configparser, shlex, moto
READ_BY_PYTHON |= {"elastic_launch", "simdlen"}  # by torchrun and torch.compile


def sources(folder: str) -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / folder).rglob("*.py"))}


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def read_in_functions(source: str) -> set[str]:
    """The globals that functions of a module read when they are called."""

    def walk(table: symtable.SymbolTable, inside: bool) -> Iterator[str]:
        inside = inside or table.get_type() == "function"
        if inside:
            yield from (one.get_name() for one in table.get_symbols() if one.is_global() and one.is_referenced())
        for child in table.get_children():
            yield from walk(child, inside)

    return set(walk(symtable.symtable(source, "source", "exec"), inside=False))


def imported(tree: ast.AST) -> dict[str, str]:
    """Name in the file → what it stands for, dotted."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            names |= {one.asname: one.name for one in node.names if one.asname}
            names |= {root: root for one in node.names if not one.asname for root in [one.name.split(".")[0]]}
    return names


def dotted(node: ast.expr, names: Mapping[str, str]) -> str | None:
    """What an expression like `alias.part` stands for; None where it is no imported name."""
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, names)
        return owner and f"{owner}.{node.attr}"
    return names.get(node.id) if isinstance(node, ast.Name) else None


def replaced(tree: ast.AST) -> Iterator[tuple[int, str | None, str]]:
    """Line, owner and name of all that a test file replaces; the owner dotted, None where it is no imported name."""
    names, nodes = imported(tree), list(ast.walk(tree))
    own = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) != "self":
            owner = dotted(node.value, names)
            if owner is not None or node.attr not in own:  # else it may be of an object of the test's
                yield node.lineno, owner, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "setattr":
            target, *rest = node.args
            if isinstance(target, ast.Constant):
                owner, _, name = target.value.rpartition(".")
                yield node.lineno, owner, name
            elif isinstance(rest[0], ast.Constant):
                yield node.lineno, dotted(target, names), rest[0].value


def without_effect(tests: Mapping[str, str], code: Mapping[str, str]) -> list[str]:
    """What the tests replace and the code never reads, each with its file and line."""
    attributes: set[str] = set()  # read of anything; of modules by their whole name
    for tree in map(ast.parse, code.values()):
        names = imported(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                attributes |= {node.attr, dotted(node, names) or node.attr}
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):  # an import in it is read when it is called
                inside = [node for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
                found = [(node.module, alias.name) for node in inside for alias in node.names]
                attributes |= {name for module, name in found} | {f"{module}.{name}" for module, name in found}
    functions = {module_name(path): read_in_functions(source) for path, source in code.items()}
    for module, read in functions.items():
        if module.startswith(("benchmarks.", "tools.")):  # which tests import by names that are not seen here
            attributes |= read
    faults = []
    for path, source in tests.items():
        for line, owner, name in replaced(ast.parse(source)):
            if owner in functions:
                if name not in functions[owner] and f"{owner}.{name}" not in attributes:
                    faults.append(f"{path}:{line}: no function of {owner} reads {name}")
            elif name not in attributes | READ_BY_PYTHON:
                faults.append(f"{path}:{line}: nothing in the code reads .{name}")
    return faults


def test_every_patch_reaches_the_code() -> None:
    code = {path: source for folder in ("bothways", "tools", "benchmarks") for path, source in sources(folder).items()}
    code["hatch_build.py"] = (ROOT / "hatch_build.py").read_text()
    assert without_effect(sources("tests"), code) == []


CODE = {
    "bothways/a.py": "from bothways.b import used, passed\nLIMIT = 3\ndef go(x):\n  LIMIT = 2\n  return used(x.size)\n",
    "bothways/b.py": "from bothways import c\nused = passed = len\ndef both():\n    return c.SIZE\n",
    "bothways/c.py": "SIZE = 1\nDOUBLE = 2 * SIZE\n",
}


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("patch.setattr(other, 'used', None)", ""),
        ("patch.setattr(other, 'passed', None)", "t.py:3: no function of bothways.a reads passed"),
        ("patch.setattr('bothways.a.passed', None)", "t.py:3: no function of bothways.a reads passed"),
        ("patch.setattr(bothways.a, 'LIMIT', 4)", "t.py:3: no function of bothways.a reads LIMIT"),
        ("other.LIMIT = 4", "t.py:3: no function of bothways.a reads LIMIT"),
        ("patch.setattr('bothways.c.SIZE', 2)", ""),
        ("patch.setattr('bothways.c.DOUBLE', 2)", "t.py:3: no function of bothways.c reads DOUBLE"),
        ("thing.size = 1", ""),
        ("thing._size, y = 1, 2", "t.py:3: nothing in the code reads ._size"),
        ("patch.setattr(type(thing), 'length', 1)", "t.py:3: nothing in the code reads .length"),
        ("setattr(other.go, 'length', 1)", "t.py:3: nothing in the code reads .length"),
        ("self.length = 1", ""),
    ],
)
def test_a_patch_of_what_nobody_reads_is_found(statement: str, fault: str) -> None:
    source = f"import bothways\nfrom bothways import a as other\n{statement}\n"
    assert without_effect({"t.py": source}, CODE) == ([fault] if fault else [])
