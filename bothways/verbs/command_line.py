"""The words behind a verb as values of its options, or one plain sentence on what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.checkpoint.shipped import shipped_models
from bothways.errors import UserError, closest
from bothways.verbs.options import Option, accepted_in_words

HELP = ("-h", "--help")
_NUMBER = re.compile(r"-(\d|\.\d)")  # a word that begins so is a value, no option
_NAME = re.compile(r"[\w.-]+", re.ASCII)  # of a directory that is not there, or of a model on the hub

LeastWords = Callable[[Mapping[str, Any]], int]  # by the options that are given: words that a verb needs, without MODEL


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether the help is asked for, whatever else is."""
    return any(word in HELP for word in words[: words.index("--") if "--" in words else None])


def read_words(
    options: Sequence[Option], words: Sequence[str], least_words: LeastWords | None = None
) -> dict[str, Any]:
    """The values that the words give, by the option's name; what is not given is left out.

    `--name value`, `--name=value`, underscores as good as dashes; of a list all words up to the next option; a switch
    alone, and `--no-name` against it; behind `--` everything is positional. Of a value that is given twice the last one
    counts, lists add up. The model that a verb asks is the first word where that names one (`names_model`), unless it
    is given by `--model`.

    Raises UserError for an option that there is not, for a value missing, of another type or too many.
    """
    flags = {f"--{option.name}" if option.is_model else option.flag: option for option in options}
    flags = {flag: option for flag, option in flags.items() if flag.startswith("--")}
    values: dict[str, Any] = {}
    alone: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            alone += rest
            break
        if not _is_option(word):
            alone.append(word)
            continue
        typed, equals, attached = word.partition("=")
        option = _find(flags, typed)
        if option.is_switch:
            if equals:
                raise UserError(f"{typed}: is a switch, and takes no value; found {attached!r}")
            values[option.name] = typed.replace("_", "-") == option.flag
        else:
            given = [option.read(value) for value in ([attached] if equals else _take(rest, option))]
            values[option.name] = (*values.get(option.name, ()), *given) if option.is_list else given[0]
    expected = [option for option in options if option.is_positional]
    texts = [option for option in expected if not option.is_model]
    if len(texts) < len(expected):
        least = least_words(values) if least_words else sum(option.is_required for option in texts)
        by_flag = any(option.name in values for option in expected)
        expected = expected if alone and not by_flag and names_model(alone, least) else texts
    return values | _positionals(expected, alone)


def names_model(words: Sequence[str], least: int) -> bool:
    """Whether the first word names a model, or is of the text already. least: words that the text needs.

    It does if it is a directory, a shipped model, or written as a path or as a hub id with its owner: with a slash, and
    without a blank. A name alone, of ASCII letters, digits, dots and dashes, does where enough words are left.
    """
    word = words[0]
    if Path(word).is_dir() or word in shipped_models() or ("/" in word and not re.search(r"\s", word)):
        return True
    return len(words) > least and bool(_NAME.fullmatch(word))


def _find(flags: Mapping[str, Option], typed: str) -> Option:
    """The option of a flag, or the switch that `--no-NAME` puts off. Raises UserError where there is none."""
    flag = typed.replace("_", "-")
    against = flags.get(f"--{flag.removeprefix('--no-')}")
    option = flags.get(flag) or (against if against and against.is_switch else None)
    if option is None:
        raise UserError(f"unknown option {typed}{closest(flag, [*flags, '--recipe', '--help'])}")
    return option


def _is_option(word: str) -> bool:
    """Whether a word names an option: a text that begins with a dash has a blank, a negative number a digit."""
    return word.startswith("-") and word != "-" and " " not in word.partition("=")[0] and not _NUMBER.match(word)


def _take(rest: list[str], option: Option) -> list[str]:
    """Take an option's values off the front of the words that are left."""
    given: list[str] = []
    while rest and not _is_option(rest[0]) and (option.is_list or not given):
        given.append(rest.pop(0))
    if not given:
        found = f"; found {rest[0]} (write {option.flag}={rest[0]} for a value that begins so)" if rest else ""
        raise UserError(f"{option.flag}: a value is missing, expected {accepted_in_words(option.hint)}{found}")
    return given


def _positionals(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any]:
    """Words without an option's name, in order; a list takes all that are left."""
    values: dict[str, Any] = {}
    left = list(words)
    for option in options:
        if left and option.is_list:
            values[option.name], left = tuple(map(option.read, left)), []
        elif left:
            values[option.name] = option.read(left.pop(0))
    if left:
        raise UserError(f"unexpected argument {left[0]!r}; a text of several words stands in quotes")
    return values


def require_all(verb: str, options: Sequence[Option], values: dict[str, Any]) -> None:
    """Raises UserError where an option that has no default is not given."""
    missing = [option.flag for option in options if option.is_required and option.name not in values]
    if not missing:
        return
    lists = [option.flag for option in options if option.is_list and not option.is_positional and option.name in values]
    swallowed = ""
    if lists and not missing[0].startswith("--"):
        swallowed = f"; {lists[0]} takes all words behind it, so write {missing[0]} before it"
    be = "is" if len(missing) == 1 else "are"
    raise UserError(f"{verb}: {' and '.join(missing)} {be} missing{swallowed} (bothways {verb} --help has an example)")
