"""The options of dataclasses: which values fit a field's type, and the type in words.

The verbs' flags and recipes, the keywords of Python's functions and the options of generation are all checked by it.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Literal


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def matches_type(value: Any, hint: Any) -> bool:
    """Whether a value out of TOML, or a keyword's, is of an option's type."""
    for part in _parts(hint):
        if typing.get_origin(part) is Literal:
            if value in typing.get_args(part):
                return True
        elif part is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return True
        elif part is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif typing.get_origin(part) is tuple:
            if isinstance(value, list) and all(isinstance(one, str) for one in value):
                return True
        elif isinstance(part, type) and isinstance(value, part):
            return True
    return False


def type_in_words(hint: Any) -> str:
    """An option's type in words."""
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(hint))
    return " or ".join(getattr(part, "__name__", str(part)) for part in _parts(hint) if part is not type(None))
