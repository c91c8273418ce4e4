"""Options as fields of dataclasses: which values a field's type accepts, the type in words, and what is refused.

The verbs' flags and recipes, the keywords of Python's functions and the options of generation are all checked here.
"""

from __future__ import annotations

import numbers
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from bothways.errors import UserError, closest, option

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
    if not isinstance(name, str) or name not in known:
        name = name if isinstance(name, str) else in_short(name)
        raise UserError(f"{owner} has no option {name!r}{closest(name, known)}; accepted: {', '.join(known)}")


def require_type(name: str, value: Any, hint: Any) -> None:
    """Raises UserError where a value is not of its option's type."""
    if not matches_type(value, hint):
        raise UserError(f"{name} is {value!r}, expected {type_in_words(hint)}")


def require_at_least(least: int, **options: int | None) -> None:
    """Raises UserError for the first option that is below `least` or no whole number; an option that is None is left to
    its default."""
    require_count(least, **{name: value for name, value in options.items() if value is not None})


def require_count(least: int = 1, /, **options: int) -> None:
    """As `require_at_least`, for options that None says nothing for."""
    for name, value in options.items():
        require_type(name, plain_number(value), int)
        if value < least:
            raise UserError(f"{option(name, value)}: expected at least {least}")


def require_seed(seed: int) -> None:
    """Raises UserError for a seed that does not fit 63 bits."""
    if not 0 <= seed < 1 << 63:
        raise UserError(f"{option('seed', seed)}: expected 0 to 2^63 - 1")


def checked(options: _Options, kind: type | None = None) -> _Options:
    """The options themselves, each value of its field's type.

    kind: the dataclass whose fields are looked at; by default the options' own, with those of a subclass.
    Raises UserError for the first value of another type.
    """
    for name, hint in typing.get_type_hints(kind or type(options)).items():
        require_type(name, getattr(options, name), hint)
    return options


def options_from(kind: type[_Options], function: str, options: object, keywords: Mapping[str, Any]) -> _Options:
    """The options of a function: an object of `kind`, a dictionary, or None, and keywords, which win.

    kind: a dataclass whose fields all have defaults. function: whose options they are, for errors.
    Raises UserError for a name that `kind` does not have, with the closest one, and for a value of another type.
    """
    if options is not None and not isinstance(options, kind | Mapping):
        raise UserError(f"{option('options')}: expected {kind.__name__} or a dictionary, found {in_short(options)}")
    start = options if isinstance(options, kind) else kind()
    given = {**(options if isinstance(options, Mapping) else {}), **keywords}
    return checked(replace(start, **field_values(kind, function, given)), kind)  # type: ignore[type-var]


def field_values(kind: type, owner: str, given: Mapping[Any, Any]) -> dict[str, Any]:
    """Values by field as `kind` takes them; of a field of several values one may come alone, and a list is a tuple.

    owner: whose options they are, for errors. Raises UserError as `require_name` and `require_type` do.
    """
    hints, values = typing.get_type_hints(kind), {}
    for name, value in given.items():
        require_name(owner, name, hints)
        if typing.get_origin(hints[name]) is tuple:
            value = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        value = plain_number(value)
        require_type(name, value, hints[name])
        values[name] = value
    return values


def plain_number(value: Any) -> Any:
    """A number of numpy's as Python's own, which JSON has; anything else as it is."""
    return value.item() if isinstance(value, numbers.Number) and hasattr(value, "item") else value


def require_path(**arguments: object) -> None:
    """Raises UserError for the first argument that is neither text nor a path, or is empty."""
    for name, value in arguments.items():
        if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
            raise UserError(f"{option(name)}: expected a path, found {in_short(value)}")


def in_short(value: object) -> str:
    """A value as an error quotes it: its repr where that is short and plain, else its type."""
    plain = value is None or isinstance(value, str | bytes | int | float | Path)
    return repr(value)[:60] if plain else f"a {type(value).__name__}"


def rounded_repr(record: Any) -> str:
    """A dataclass's `__repr__` with numbers of four significant digits: all that is worth reading of a probability, or
    of seconds. The fields themselves keep theirs."""
    shown = ", ".join(f"{field.name}={_rounded(getattr(record, field.name))}" for field in fields(record) if field.repr)
    return f"{type(record).__name__}({shown})"


def _rounded(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    if type(value) is list:
        return f"[{', '.join(map(_rounded, value))}]"
    return repr(value)


def values_of(options: Any, kind: type) -> dict[str, Any]:
    """The options that `kind` has, by name; what a subclass adds (the command line's paths) is left out."""
    return {field.name: getattr(options, field.name) for field in fields(kind)}
