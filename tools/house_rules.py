"""The house's own rules for names, which no linter knows: `python tools/house_rules.py` names each line at fault.

- A public name (function, class or constant at the top of a module) is there once in the whole package.
- Nothing is called `one`: the noun says what it is.
- What a head is, only `model/heads.py` asks: no `isinstance(head, …)` elsewhere.
- A message below `bothways/verbs/` names an option by `errors.option("top_k")`, which spells it as Python or as the
  command line does, and not as `--top-k`. Style sheets and the commands of `next_command` are exempt.
- A function has at most six parameters; scikit-learn's estimators, whose parameters are their options, are exempt, and
  so are functions that are public Python (`bothways.__all__`), whose keywords are a promise, and the `forward` of an
  autograd function, whose parameters are tensors.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

MAX_PARAMETERS = 6
HEADS = "bothways/model/heads.py"
ESTIMATORS = "bothways/sklearn.py"
FACADE = "bothways/__init__.py"
COMMAND_LINE = (
    "bothways/verbs/",
    "bothways/cli.py",
    "bothways/demo/",
    "bothways/errors.py",
)  # where flags are spelled with dashes
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
STYLE_SHEET = re.compile(r"var\(--|style=")


def broken_rules(sources: Mapping[str, str]) -> list[str]:
    """`file:line: what is wrong` for sources by their paths from the repository's root."""
    trees = {path: ast.parse(source) for path, source in sources.items()}
    promised = _promised(trees.get(FACADE))
    found = list(_doubled_names({path: tree for path, tree in trees.items() if path.startswith("bothways/")}))
    for path, tree in trees.items():
        found += [f"{path}:{line}: {what}" for line, what in _in_file(path, tree, promised)]
    return sorted(found)


def _promised(facade: ast.Module | None) -> set[str]:
    """The names in `__all__`."""
    for node in facade.body if facade else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def _doubled_names(trees: Mapping[str, ast.Module]) -> Iterator[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees.items():
        if path == FACADE:
            continue  # it lists names of others
        for node in tree.body:
            for name in _names_made_by(node):
                if not name.startswith("_"):
                    places[name].append(f"{path}:{node.lineno}")
    for name, where in places.items():
        if len(where) > 1:
            yield f"{where[1]}: the public name {name!r} is at {where[0]} already"


def _names_made_by(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        overloaded = any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
        return set() if overloaded else {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _in_file(path: str, tree: ast.Module, promised: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            parameters = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            number = len([name for name in parameters if name not in ("self", "cls", "ctx")])
            exempt = path == ESTIMATORS or node.name in promised or (node.name == "forward" and "ctx" in parameters)
            if number > MAX_PARAMETERS and not exempt:
                yield node.lineno, f"{node.name} has {number} parameters, at most {MAX_PARAMETERS} are allowed"
        if (isinstance(node, ast.Name) and node.id == "one" and isinstance(node.ctx, ast.Store)) or (
            isinstance(node, ast.arg) and node.arg == "one"
        ):
            yield node.lineno, "a variable is called `one`; call it what it is"
        if path != HEADS and isinstance(node, ast.Call) and _asks_a_head(node):
            yield node.lineno, f"asks what a head is ({ast.unparse(node)}); let the head say it"
    if path.startswith("bothways/") and not path.startswith(COMMAND_LINE):
        yield from _flags_in_messages(tree)


def _flags_in_messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Strings that spell an option with dashes; docstrings, which are not shown to a caller, are left alone."""
    exempt = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and _names_made_by(node) == {"next_command"}:
            exempt.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in exempt:
            found = FLAG.search(node.value)
            if found and not STYLE_SHEET.search(node.value):
                name = found.group().removeprefix("--").replace("-", "_")
                yield node.lineno, f"spells {found.group()}; errors.option({name!r}) names it in Python, too"


def _asks_a_head(node: ast.Call) -> bool:
    if ast.unparse(node.func) != "isinstance" or not node.args:
        return False
    asked = ast.unparse(node.args[0])
    return asked == "head" or asked.endswith(".head")


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    paths = [*(root / "bothways").rglob("*.py"), *(root / "benchmarks").glob("*.py"), *(root / "tools").glob("*.py")]
    found = broken_rules({str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in sorted(paths)})
    print("\n".join(found) or "the house's rules hold")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
