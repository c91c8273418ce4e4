"""Options as fields of dataclasses: which values a field's type accepts, the type in words, and what is refused.

The verbs' flags and recipes, the keywords of Python's functions and the options of generation are all checked here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection
from dataclasses import fields
from typing import Any, Literal, TypeVar

from bothways.errors import UserError, closest

_Options = TypeVar("_Options")


def union_members(hint: Any) -> tuple[Any, ...]:
    """The types that a union allows; of any other type the type alone."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union  # Literal | None is a Union
    return typing.get_args(hint) if is_union else (hint,)


def matches_type(value: Any, hint: Any) -> bool:
    """Whether a value from TOML or from a keyword is of an option's type.

    An int is accepted for a float, a bool for neither; a list or a tuple of strings for a tuple.
    """
    for member in union_members(hint):
        if typing.get_origin(member) is Literal:
            if value in typing.get_args(member):
                return True
        elif member is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return True
        elif member is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif typing.get_origin(member) is tuple:
            if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
                return True
        elif typing.get_origin(member) in (list, dict):
            if isinstance(value, typing.get_origin(member)) and _entries_match(value, typing.get_args(member)):
                return True
        elif isinstance(member, type) and isinstance(value, member):
            return True
    return False


def _entries_match(value: Any, hints: tuple[Any, ...]) -> bool:
    """Whether the entries of a list, or the keys and values of a dictionary, are of these types."""
    columns = (value.keys(), value.values()) if isinstance(value, dict) else (value,)
    return all(matches_type(entry, hint) for column, hint in zip(columns, hints, strict=True) for entry in column)


def type_in_words(hint: Any) -> str:
    """An option's type in words, without its None: `int`, `'quick' or 'standard'`."""
    words: list[str] = []
    for member in union_members(hint):
        if typing.get_origin(member) is Literal:
            words += map(repr, typing.get_args(member))
        elif member is not type(None):
            words.append(getattr(member, "__name__", str(member)))
    return " or ".join(words)


def require_name(owner: str, name: str, known: Collection[str]) -> None:
    """Raises UserError where `owner` has no option of this name; the message has the closest and all known ones."""
    if name not in known:
        raise UserError(f"{owner} has no option {name!r}{closest(name, known)}; accepted: {', '.join(known)}")


def require_type(name: str, value: Any, hint: Any) -> None:
    """Raises UserError where a value is not of its option's type."""
    if not matches_type(value, hint):
        raise UserError(f"{name} is {value!r}, expected {type_in_words(hint)}")


def require_at_least(least: int, **options: int | None) -> None:
    """Raises UserError for the first option below `least`; an option that is None is left to its default."""
    for name, value in options.items():
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected at least {least}")


def require_seed(seed: int) -> None:
    """Raises UserError for a seed that does not fit 63 bits."""
    if not 0 <= seed < 1 << 63:
        raise UserError(f"--seed {seed}: expected 0 to 2^63 - 1")


def checked(options: _Options, kind: type | None = None) -> _Options:
    """The options themselves, each value of its field's type.

    kind: the dataclass whose fields are looked at; by default the options' own, with those of a subclass.
    Raises UserError for the first value of another type.
    """
    for name, hint in typing.get_type_hints(kind or type(options)).items():
        require_type(name, getattr(options, name), hint)
    return options


def values_of(options: Any, kind: type) -> dict[str, Any]:
    """The options that `kind` has, by name; what a subclass adds (the command line's paths) is left out."""
    return {field.name: getattr(options, field.name) for field in fields(kind)}
