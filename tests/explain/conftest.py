"""JavaScript of the page as functions."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from bothways.pages.explanation import PAGE_MODULES, join_modules


@pytest.fixture(scope="session")
def run_script(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """The value of a script's last expression, a promise's where it is one, as JSON has it (NaN and infinities are
    None): by Node, or else by Chromium."""
    node = shutil.which("node")
    if node is None:
        page = request.getfixturevalue("browser").new_page()
        as_json = "async (script) => JSON.stringify(await eval(script))"
        return lambda script: json.loads(page.evaluate(as_json, script))

    def run(script: str) -> Any:
        code = f"Promise.resolve(eval({json.dumps(script)})).then((value) => console.log(JSON.stringify(value)))"
        finished = subprocess.run([node, "--eval", code], capture_output=True, text=True, timeout=60, check=False)
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    return run


@pytest.fixture(scope="session")
def evaluate(run_script: Callable[[str], Any]) -> Callable[..., Any]:
    """`evaluate(function, *arguments)`: what a JavaScript function gives of the page's modules (all but `page.js`,
    which starts the page), by their names, and of arguments that JSON can hold."""
    modules = join_modules([name for name in PAGE_MODULES if name != "page.js"])
    by_name = "Object.fromEntries(Object.entries(modules).map(([name, module]) => [name.slice(0, -3), module]))"

    def call(function: str, *arguments: Any) -> Any:
        given = json.dumps(arguments)
        return run_script(f"(async () => {{ {modules}\nreturn ({function})({by_name}, ...{given}); }})()")

    return call
