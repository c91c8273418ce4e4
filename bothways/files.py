"""Files that are never half written: a temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from bothways.errors import UserError, option

PARTIAL = ".*.partial"  # names of files that are being written, or were when a process died
PROBE = ".bothways-probe"  # the file by which `require_writable` tries a directory
SPARE_FILES = 256  # that a process has open besides: libraries, sockets, a terminal


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError where the file is missing or is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: {path.name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def to_json(value: Any, **options: Any) -> str:
    """`json.dumps(value, **options)`, but what JSON has no number for, NaN and the infinities, is null (RFC 8259)."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_without_infinities(value), allow_nan=False, **options)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, as `to_json` has it."""
    write_text(path, to_json(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; a reader sees the old file or the new one."""
    with user_errors(path):
        temporary = path.with_name(f".{path.name}.partial")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name of its own beside `path` to write a file to, which becomes `path` when the block ends well. So two
    processes that write `path` at the same time do not meet; the last one's stays."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def refuse_foreign_files(directory: Path, names: Collection[str]) -> None:
    """Raises UserError when `directory` is a file or holds anything but `names`: it is not ours to replace.

    names: of files and folders, or patterns of them (`*.arrow`). What an interrupted write left aside is ours as well.
    """
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise UserError(f"{directory} is not a directory; choose another {option('out')}")
    ours = (*names, PARTIAL, ".*.old", PROBE)
    stray = sorted(
        path.name
        for path in (directory.iterdir() if directory.exists() else ())
        if not any(fnmatch.fnmatchcase(path.name, pattern) for pattern in ours)
    )
    if stray:
        found = ", ".join(stray[:3])
        raise UserError(f"{directory} holds something else ({found}); choose another {option('out')}")


@contextlib.contextmanager
def replace_directory(directory: Path) -> Iterator[Path]:
    """A fresh directory to fill, which takes the place of `directory` when the block ends well.

    When the block fails it is removed, and what was at `directory` stays as it was. Whether `directory` may be
    replaced is the caller's to know (`refuse_foreign_files`).
    """
    directory = directory.resolve()
    partial = directory.with_name(f".{directory.name}.partial")
    old = directory.with_name(f".{directory.name}.old")
    with user_errors(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not directory.exists():
            old.rename(directory)  # an earlier replacement stopped between its two renames
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial
            sync_tree(partial)
            if directory.exists():
                directory.rename(old)
            partial.rename(directory)
            sync(directory.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)


def replace_with(complete: Path, directory: Path) -> None:
    """Let a complete directory take the place of another beside it."""
    old = directory.with_name(f".{directory.name}.old")
    with user_errors(directory):
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            directory.rename(old)
        complete.rename(directory)
        sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def require_file_writable(path: Path, suffixes: Collection[str], name: str) -> None:
    """Prove that a file can be written, before the work whose result it is to hold. name: of the option that names it.

    Raises UserError for another suffix, a folder that is not there, and a folder of the file's name.
    """
    named = option(name, path)
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{named}: expected a file that ends in {' or '.join(suffixes)}")
    if path.is_dir():
        raise UserError(f"{named}: is a folder")
    if not path.parent.is_dir():
        raise UserError(f"{named}: the folder {path.parent} is not there")


def sync_tree(directory: Path) -> None:
    """fsync every file of a directory and the directory itself."""
    for path in directory.rglob("*"):
        sync(path)
    sync(directory)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable(directory: Path) -> None:
    """Prove that a file can be written in `directory`, which may not be there yet, before hours of work depend on it.

    Leaves no trace, so that a job that is refused later has made no empty folders.
    """
    if not str(directory).strip() or str(directory) == ".":
        raise UserError(f"{option('out')}: expected a directory of its own")
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    with user_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / PROBE
        probe.write_bytes(b"1")
        probe.unlink(missing_ok=True)  # another process proves it, too
        with contextlib.suppress(OSError):  # another process has begun to write there
            for path in missing:
                path.rmdir()


@contextlib.contextmanager
def user_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write `path` into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"{path}: the disk is full ({error.strerror}); what was complete before is intact"
            ) from error
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # safetensors wraps the system's error in its own
            raise UserError(f"{path}: cannot be written: {error}; what was complete before is intact") from error
        raise


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def allow_open_files(number: int) -> None:
    """Raise this process's limit of open files, where `number` of them at once are above it, as far as the system lets
    it."""
    try:
        import resource  # which only Unix has
    except ImportError:
        return
    wanted = number + SPARE_FILES
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return
    if highest != resource.RLIM_INFINITY:
        wanted = max(limit, min(wanted, highest))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, highest))
