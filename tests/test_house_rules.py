"""The checker of the house's rules finds what it is to find, and nothing else."""

from __future__ import annotations

import re

import pytest

from tools.house_rules import broken_rules

SEVEN = "a, b, c, d, e, f, g"


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("bothways/a.py", "def f():\n    return [one for one in ()]\n", "bothways/a.py:2: a variable is called `one`"),
        ("bothways/a.py", "f = lambda one: one\n", "a.py:1: a variable is called `one`"),
        ("benchmarks/a.py", "for one in (): pass\n", "benchmarks/a.py:1: a variable is called `one`"),
        ("bothways/a.py", f"def f({SEVEN}): ...\n", "a.py:1: f has 7 parameters"),
        ("bothways/a.py", "def f(a, b, c, *, d, e, f, g): ...\n", "a.py:1: f has 7 parameters"),
        ("bothways/a.py", "if isinstance(model.head, H): pass\n", r"a.py:1: asks what a head is \(isinstance"),
        ("bothways/a.py", "if isinstance(head, H): pass\n", "a.py:1: asks what a head is"),
        (
            "bothways/a.py",
            "def f(x):\n    'F.'\n    say(f'{x}: --top-k 0')\n",
            r"a.py:3: spells --top-k; errors.option\('top_k'\)",
        ),
        ("bothways/a.py", "NEEDED = '(--eval names it)'\n", "a.py:1: spells --eval"),
    ],
)
def test_a_broken_rule_is_named_with_its_line(path: str, source: str, said: str) -> None:
    (found,) = broken_rules({path: source})
    assert re.search(said, found), found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("bothways/a.py", "def f():\n    '''The one file.'''\n    return [path for path in ()]\n"),
        ("bothways/a.py", "class A:\n    def f(self, a, b, c, d, e, f): ...\n"),
        ("bothways/a.py", f"class A:\n    def forward(ctx, {SEVEN}): ...\n"),
        ("bothways/sklearn.py", f"class A:\n    def __init__(self, {SEVEN}): ...\n"),
        ("bothways/model/heads.py", "if isinstance(head, H): pass\n"),
        ("bothways/a.py", "if isinstance(heading, H): pass\n"),
        ("bothways/a.py", "def f():\n    '--top-k says it.'\n"),
        ("bothways/a.py", "class A:\n    next_command: str = 'similar {model} --in lines.txt'\n"),
        ("bothways/a.py", "STYLE = 'p { color: var(--fg) }'\n"),
        ("bothways/verbs/a.py", "EXAMPLE = 'bothways a --top-k 3'\n"),
    ],
)
def test_what_is_allowed_is_not_named(path: str, source: str) -> None:
    assert broken_rules({path: source}) == []


def test_a_public_name_is_there_once() -> None:
    doubled = {"bothways/a.py": "SIZE = 1\n_own = 1\n", "bothways/b.py": "_own = 2\n\n\ndef SIZE(): ...\n"}
    assert broken_rules(doubled) == ["bothways/b.py:4: the public name 'SIZE' is at bothways/a.py:1 already"]
    assert broken_rules({"bothways/a.py": "SIZE = 1\n", "benchmarks/b.py": "SIZE = 2\n"}) == []


def test_keywords_of_public_functions_are_a_promise() -> None:
    facade = {"bothways/__init__.py": "__all__ = ['train']\n", "bothways/a.py": f"def train({SEVEN}): ...\n"}
    assert broken_rules(facade) == []
