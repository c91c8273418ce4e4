"""A verb's options as fields of a dataclass: how each is spelt on the command line, and which values it takes."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from bothways.errors import UserError, closest
from bothways.option_checks import union_members

_Value = TypeVar("_Value")
_POSITIONAL = object()  # the mark of a field whose value stands by itself, without `--name`
Positional = Annotated[_Value, _POSITIONAL]
_MODEL = object()  # the mark of the model that a verb asks, which may be left out
ModelToAsk = Annotated[str | None, _POSITIONAL, _MODEL]

# Fields that are spelt otherwise: `in` is a keyword of Python, and of many one is named in the help.
SPELT = {"input": "in", "sources": "source", "texts": "text"}
TYPES_IN_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True)
class Option:
    """A field of a verb's dataclass.

    hint: its type, without marks. default: `dataclasses.MISSING` where the option is required. is_model: whether it is
    the model that a verb asks: the first word, if that names one, or `--model NAME`.
    """

    name: str
    hint: Any
    default: Any
    is_positional: bool
    is_model: bool = False

    @property
    def flag(self) -> str:
        """As it is typed; of a positional option the word that stands for it in the help."""
        spelt = SPELT.get(self.name, self.name)
        return spelt.upper() if self.is_positional else f"--{spelt.replace('_', '-')}"

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off, and takes no value."""
        return self.hint is bool

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return any(typing.get_origin(member) is tuple for member in union_members(self.hint))

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it takes, where these can be listed."""
        return choices_of(self.hint)

    def read(self, word: str) -> Any:
        """The value that a word of the command line stands for. Raises UserError where it is none."""
        members = [member for member in union_members(self.hint) if member is not type(None)]
        if self.is_list or str in members:
            return word
        for kind in (int, float):
            if kind in members:
                try:
                    return kind(word)
                except ValueError:
                    continue
        if word in self.choices:
            return word
        near = closest(word, self.choices)
        raise UserError(f"{self.flag}: expected {accepted_in_words(self.hint)}, found {word!r}{near}")


def options_of(kind: type) -> list[Option]:
    """The options of a verb's dataclass, in the order of its fields."""
    marked, plain = typing.get_type_hints(kind, include_extras=True), typing.get_type_hints(kind)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in marked.items()}
    return [
        Option(
            field.name,
            plain[field.name],
            field.default,  # no verb has a default_factory: options are immutable
            _POSITIONAL in marks[field.name],
            _MODEL in marks[field.name],
        )
        for field in dataclasses.fields(kind)
    ]


def choices_of(hint: Any) -> tuple[str, ...]:
    """The values of the Literals of a type."""
    literals = [member for member in union_members(hint) if typing.get_origin(member) is Literal]
    return tuple(value for literal in literals for value in typing.get_args(literal))


def accepted_in_words(hint: Any) -> str:
    """What an option's type accepts, for people: `a whole number`, `one of auto, on, off`."""
    if choices := choices_of(hint):
        return f"one of {', '.join(choices)}" if len(choices) > 1 else repr(choices[0])
    members = [member for member in union_members(hint) if member is not type(None)]
    return " or ".join("a list of texts" if typing.get_origin(m) is tuple else TYPES_IN_WORDS[m] for m in members)
