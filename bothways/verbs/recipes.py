"""Recipes: TOML files with a table for each verb, in which options have the verb's own names: `[pretrain]`, …"""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bothways.errors import UserError, closest
from bothways.option_checks import matches_type, require_name, union_members
from bothways.verbs import VERBS
from bothways.verbs.options import accepted_in_words


def split_recipe(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """What stands after `--recipe`, and the other arguments."""
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument == "--recipe":
            if index + 1 == len(rest):
                raise UserError("--recipe: expected a TOML file")
            return rest[index + 1], rest[:index] + rest[index + 2 :]
        if argument.startswith("--recipe="):
            return argument.partition("=")[2], rest[:index] + rest[index + 1 :]
    return None, rest


def find_recipe(name: str) -> Path:
    """A path, or the name of a recipe that comes with Bothways (`bert-mini`)."""
    package = Path(__file__).resolve().parent.parent
    folders = [package / "recipes", package.parent / "recipes"]  # in an installed package; in a checkout
    candidates = [Path(name), *(folder / f"{name.removesuffix('.toml')}.toml" for folder in folders)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted({path.stem for folder in folders for path in folder.glob("*.toml")})
    raise UserError(
        f"--recipe {name}: no such file{closest(name, known)}; recipes that come with it: {', '.join(known)}"
    )


def read_recipe(name: str, verb: str, options: type) -> dict[str, Any]:
    """The values a recipe has for a verb, checked against the fields of its options."""
    path = find_recipe(name)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    stray = [key for key, value in tables.items() if not isinstance(value, dict)]
    if stray:
        raise UserError(f"{path}: {stray[0]!r} stands outside a table; write it under [{verb}]")
    unknown = [table for table in tables if table not in VERBS]
    if unknown:
        raise UserError(f"{path}: [{unknown[0]}] is no verb{closest(unknown[0], VERBS)}; accepted: {', '.join(VERBS)}")
    if verb not in tables:
        raise UserError(f"{path}: has no [{verb}]; it has {', '.join(f'[{table}]' for table in tables) or 'nothing'}")
    values = tables[verb]
    hints = typing.get_type_hints(options)
    for key, value in values.items():
        require_name(f"{path}: [{verb}]", key, hints)
        if not matches_type(value, hints[key]):
            raise UserError(f"{path}: [{verb}] {key} = {value!r}, expected {accepted_in_words(hints[key])}")
    return {key: _as_field(value, hints[key]) for key, value in values.items()}


def _as_field(value: Any, hint: Any) -> Any:
    """A value out of TOML as a dataclass has it: lists are tuples, whole numbers floats where the field is one."""
    if isinstance(value, list):
        return tuple(value)
    return float(value) if float in union_members(hint) else value
