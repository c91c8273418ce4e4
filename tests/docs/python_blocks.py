"""The Python side of a page: its blocks in one namespace, statement by statement.

`# → …` behind a statement is its value, or what it prints, and is compared by shape. Functions that train take what
makes them small, and `out` is free before each.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import bothways as bw
from tests.docs.blocks import Block
from tests.docs.shapes import is_shown
from tests.docs.shell import SERVER, remove

ARROW = "# → "
TINY = {"size": "tiny", "steps": 2, "tokens_per_step": 256, "sequence_length": 32}
SMALL: dict[str, dict[str, Any]] = {
    "train_tokenizer": {},
    "prepare": {"workers": 1},
    "pretrain": TINY,
    "finetune": {"steps": 2, "batch_size": 4},
    "compare": {"steps": 2},
}


def run_block(block: Block, namespace: dict[str, Any], folder: Path) -> None:
    """Run a block's statements. Raises AssertionError where a value has not the shape that is shown."""
    lines = block.text.splitlines()
    for statement in ast.parse(block.text).body:
        shown = lines[(statement.end_lineno or 1) - 1].partition(ARROW)[2]
        where = f"{block.page.name}:{block.line + statement.lineno}"
        code: Any = ast.Interactive([statement])
        printed = io.StringIO()
        values: list[Any] = []
        shown_values = mock.patch("sys.displayhook", values.append)
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed), shown_values:
            exec(compile(code, where, "single"), namespace)
        if shown:
            found = printed.getvalue() if not values or values[0] is None else repr(values[0])
            assert is_shown(shown, found), f"{where}\nshown:   {shown}\nis:      {found}"


@contextlib.contextmanager
def small_functions(folder: Path, restore: Callable[[str], None], address: str) -> Iterator[None]:
    """`bw`'s functions that train, made small; its clients, asking the server of the tests."""

    def shrunk(name: str) -> Callable[..., Any]:
        function = getattr(bw, name)
        signature = inspect.signature(function)

        def call(*arguments: Any, **keywords: Any) -> Any:
            given = signature.bind_partial(*arguments, **keywords).arguments.get("out")
            if given is not None:
                remove(folder / given)
            result = function(*arguments, **{**keywords, **SMALL[name], "quiet": True})
            if given is not None:
                restore(str(given))
            return result

        return call

    def client(base_url: str = SERVER, *arguments: Any, **keywords: Any) -> Any:
        return real_client(base_url.replace(SERVER, address), *arguments, **keywords)

    real_client = bw.Client
    with contextlib.ExitStack() as patches:
        for name in SMALL:
            patches.enter_context(mock.patch.object(bw, name, shrunk(name), create=True))
        patches.enter_context(mock.patch.object(bw, "Client", client, create=True))
        yield
