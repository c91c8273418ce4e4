"""What is at `--out` already: what it was made of, how that differs from what is asked, and whether it may be replaced.

One rule for all that writes to `--out`. The same again goes on, or is done already. What is unfinished and has written
nothing of worth begins anew. What differs is refused, in the user's words. `overwrite` replaces what Bothways wrote,
and nothing else, when the new begins to be written.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.errors import UserError, as_shown, option
from bothways.files import hash_file, refuse_foreign_files, user_errors

MAX_CHANGES_SHOWN = 4  # of what differs; a line of more is not read


def begin_anew() -> str:
    """The end of a refusal: what to do about it."""
    return f"{option('overwrite', True)} begins anew, or choose another {option('out')}"


def file_record(path: str | Path) -> dict[str, Any]:
    """A file as a record has it: its path as it was given, its size in bytes, and the SHA-256 of its content."""
    return {"path": as_shown(path), "size": Path(path).stat().st_size, "sha256": hash_file(Path(path))}


def file_changes(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """What became of files, each a `file_record`: changed, new, gone. Other names for the same contents are no change.

    What is no file (`python-docs:`) has no SHA-256 and is known by its name and size.
    """
    hashes = [[entry["sha256"] for entry in entries] for entries in (before, now)]
    if hashes[0] == hashes[1] and None not in hashes[0]:
        return []
    there, asked = ({entry["path"]: entry for entry in entries} for entries in (before, now))
    changes = [
        f"{path} has changed since" if path in there else f"{path} is new"
        for path, entry in asked.items()
        if there.get(path) != entry
    ]
    changes += [f"{path} is gone" for path in there if path not in asked]
    return changes or ([] if list(there) == list(asked) else ["the files come in another order"])


def option_changes(before: Mapping[str, Any], now: Mapping[str, Any], running: Collection[str] = ()) -> list[str]:
    """`--size was mini, now small` for each option that differs.

    before: with the defaults of options that an earlier Bothways did not have yet. running: names of options that are
    about the machine or the screen, and not about what comes out.
    """
    return [
        option_change(name, before[name], value)
        for name, value in now.items()
        if name in before and name not in running and _plain(before[name]) != _plain(value)
    ]


def option_change(name: str, before: Any, now: Any) -> str:
    """How an option differs, in words."""
    flag = option(name)
    if isinstance(before, bool) and isinstance(now, bool):
        return f"{flag} was given then, not now" if before else f"{flag} was not given then"
    was = "was not given" if before in (None, (), []) else f"was {_shown(before)}"
    return f"{flag} {was}, " + ("not given now" if now in (None, (), []) else f"now {_shown(now)}")


def made_otherwise(out: Path, what: str, changes: Sequence[str]) -> UserError:
    """The refusal of an `--out` that was made otherwise. what: it holds, `a run`. changes: as the functions above."""
    shown = list(changes[:MAX_CHANGES_SHOWN])
    if len(changes) > len(shown):
        shown.append(f"and {len(changes) - len(shown):,} more differences")
    return UserError(f"{out} holds {what} that was made otherwise: {'; '.join(shown)}; {begin_anew()}")


def discard(directory: Path, names: Collection[str]) -> None:
    """Remove a directory that holds nothing but `names` (`refuse_foreign_files`), in one step for whoever looks on."""
    refuse_foreign_files(directory, names)
    if not directory.exists():
        return
    old = directory.resolve().with_name(f".{directory.resolve().name}.old")
    with user_errors(directory):
        shutil.rmtree(old, ignore_errors=True)
        directory.rename(old)
        shutil.rmtree(old)


def free_name(name: str) -> str:
    """The name, or the first of `name2`, `name3`, … that is not there yet, for what is made anew."""
    numbered = (f"{name}{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if not Path(free).exists())


def require_new_file(path: Path, name: str) -> None:
    """Raises UserError where a file is there already: what else it may hold than an earlier result is not known.

    name: of the option that names the file.
    """
    if path.exists():
        cure = f"{option('overwrite', True)} replaces it, or choose another"
        raise UserError(f"{option(name)}: {path} is there already; {cure} {option(name)}")


def require_apart(out: str | Path, inputs: Collection[Any]) -> None:
    """Raises UserError where an input, if it is a path, is what `--overwrite` would remove, or is in it."""
    for path in inputs:
        if isinstance(path, str | Path) and Path(path).resolve().is_relative_to(Path(out).resolve()):
            raise UserError(
                f"{option('overwrite', True)}: {path} is read, and would be removed with {option('out', str(out))}; "
                f"choose another {option('out')}"
            )


def command_words(words: Sequence[str], options: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """The words of a command. words: those before the options. options: left out where they are the defaults."""
    flags: list[str] = []
    for name, value in options.items():
        if _plain(value) == _plain(defaults.get(name)):
            continue
        flags.append(_flag(f"no_{name}") if value is False else _flag(name))
        if not isinstance(value, bool):
            flags += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    return [*words, *flags]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
