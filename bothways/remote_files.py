"""Files behind URLs (`s3://`, `gs://`, `hf://`, `memory://`, …), through fsspec: listed, and copied to be read.

A copy lies at CACHE/KEY/s3/BUCKET/NAME, KEY a hash of the URL and of the size and tag (ETag, date) of each file in it:
it is complete or absent, and never changes. What is changed behind the URL gets a copy of its own. Whoever names a copy
to a person names its URL, which is in its path (`errors.as_shown`). `file://` is a path of this machine.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bothways.errors import UserError, install_command, only_in_python, show_as
from bothways.progress import LOGGER, print_note, waiting

SCHEMES = ("s3", "s3a", "gs", "gcs", "hf", "memory")  # which a `Path` may hold, where it has lost a slash
LOCAL_SCHEMES = ("file", "local")
EXTRA_OF = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
KEY_DIGITS = 16  # hexadecimal
SAID_BYTES = 1 << 28  # of a copy: what takes some seconds is said, too, where there is no terminal
COPIES_AT_A_TIME = 8  # enough to hide the time of an answer; a single copy of many parts is made as fast
# Of s3: six tries in all, of 5 s where nobody answers, so that a wrong address is told within half a minute.
S3_TRIES = 2
S3_OPTIONS = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 15, "retries": {"total_max_attempts": 3}}}
TAGS = ("ETag", "etag", "md5Hash", "crc32c", "blob_id", "oid", "generation", "LastModified", "last_modified", "mtime",
        "updated", "created")  # fmt: skip
_URL = re.compile(r"([a-z][a-z0-9+.-]+):(/+)(.*)", re.DOTALL)
_SECRETS = re.compile(r"(?<=://)[^\s/]+@|\?\S*(?:sig|signature|token|credential|key|keyid|secret|password)=\S*", re.I)


@dataclass(frozen=True)
class RemoteFile:
    """size: in bytes. tag: changes when the content does: an ETag, or a date where there is none."""

    size: int
    tag: str


def url_of(path: object) -> str | None:
    """The URL that a path is, or None where it is a path of this machine, `file://` included.

    A `Path` made of a URL has lost a slash, and gets it back.
    """
    match = _URL.fullmatch(str(path)) if isinstance(path, str | Path) else None
    if match is None:
        return None
    scheme, slashes, rest = match.groups()
    if scheme in LOCAL_SCHEMES or (len(slashes) == 1 and scheme not in SCHEMES):
        return None
    return f"{scheme}://{rest.rstrip('/')}"


def local_path(path: str | Path) -> Path:
    """A path of this machine, without `file://`."""
    match = _URL.fullmatch(str(path))
    if match is None or match[1] not in LOCAL_SCHEMES:
        return Path(path)
    return Path(("/" if len(match[2]) != 2 else "") + match[3])


def shown_url(url: str) -> str:
    """A URL, or a text with URLs, without passwords and signatures."""
    return _SECRETS.sub("", url)


def cache_folder() -> Path:
    """Where copies are kept: `BOTHWAYS_CACHE`, or `bothways` in the user's cache folder."""
    if named := os.environ.get("BOTHWAYS_CACHE"):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "bothways"


def place_in_cache(url: str, *identity: Any) -> tuple[Path, Path]:
    """The folder CACHE/KEY of a URL and what identifies its content, and in it the path that shows as the URL."""
    key = hashlib.sha256(json.dumps([url, *identity], sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]
    scheme, _, rest = shown_url(url).partition("://")
    root = cache_folder()
    _say_cache(root)
    return root / key, root / key / scheme / rest.partition("?")[0]


@functools.cache
def _say_cache(root: Path) -> None:
    """Say once where copies are, and have them shown as what they are copies of."""
    pattern = re.escape(str(root)) + rf"/[0-9a-f]{{{KEY_DIGITS}}}/([a-z][a-z0-9+.-]+)/"
    show_as(re.compile(pattern), r"\1://")
    say = LOGGER.info if only_in_python("python") else print_note
    say(f"remote files are copied into {root} (the variable BOTHWAYS_CACHE names another folder)")


@functools.cache
def _filesystem(scheme: str) -> Any:
    import fsspec  # a tenth of a second, which only URLs are worth

    try:
        found = fsspec.filesystem(scheme, **(S3_OPTIONS if scheme in ("s3", "s3a") else {}))
    except ImportError as error:
        extra = EXTRA_OF.get(scheme)
        needed = f"needs {install_command(extra)}" if extra else f"needs another package: {error}"
        raise UserError(f"{scheme}://: {needed}") from error
    except ValueError as error:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "hf", "file"))
        raise UserError(f"{scheme}://: is not known; use {known}, or another that fsspec knows") from error
    except Exception as error:
        raise UserError(f"{scheme}://: {_reason(error)}") from error
    if scheme in ("s3", "s3a"):
        found.retries = S3_TRIES
    elif scheme in EXTRA_OF:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it shows the traceback of what is raised as well
    return found


@contextlib.contextmanager
def remote(url: str, doing: str = "read") -> Iterator[tuple[Any, str]]:
    """The fsspec file system of a URL and the path in it. doing: what is done with it, for errors.

    Raises UserError, of one line and without secrets, for all that fails within the block.
    """
    _refuse_dots(url)
    try:
        filesystem = _filesystem(url.partition("://")[0])
        yield filesystem, filesystem._strip_protocol(url)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{shown_url(url)}: there is no such {_missing(url)}") from error
    except PermissionError as error:
        raise UserError(f"{shown_url(url)}: no permission ({_reason(error)})") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = f"the disk of {cache_folder()} is full" if full else _reason(error)
        raise UserError(f"{shown_url(url)}: cannot be {doing}: {reason}") from error
    except Exception as error:  # of clients of many makers, with classes of their own
        hint = ""
        if "redential" in type(error).__name__:
            hint = "; they are taken from the environment or from the files of the provider's own tools"
        raise UserError(f"{shown_url(url)}: cannot be {doing}: {_reason(error)}{hint}") from error


def _refuse_dots(url: str) -> None:
    """Raises UserError for a name that leads out of its folder, and of the cache."""
    if ".." in PurePosixPath(url).parts:
        raise UserError(f"{shown_url(url)}: has '..' in it, which is no name there")


def _reason(error: BaseException) -> str:
    """The first line of an error, without secrets."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown_url(lines[0] if lines else type(error).__name__)


def _missing(url: str) -> str:
    """What is missing: the file, or the bucket that it is said to be in."""
    scheme, _, rest = url.partition("://")
    bucket = rest.partition("/")[0]
    if scheme in EXTRA_OF:
        try:
            _filesystem(scheme).ls(bucket, refresh=True)
        except FileNotFoundError:
            return f"bucket, {bucket}"
        except Exception:  # may not be listed
            return "file, folder or bucket"
    return "file or folder"


def remote_files(url: str) -> dict[str, RemoteFile]:
    """The files behind a URL by their names in it, sorted: of a file itself, under the name ""; of a folder all below
    it. Empty where there is none. Raises UserError where that cannot be known."""
    with remote(url) as (filesystem, path):
        filesystem.invalidate_cache()
        try:
            found = filesystem.find(path, detail=True)
        except FileNotFoundError:
            if _missing(url) == "file or folder":
                return {}
            raise
    return {
        name: _remote_file(info)
        for full, info in sorted(found.items())
        if info.get("type") != "directory" and not full.endswith("/")
        for name in [full[len(path) :].lstrip("/")]
    }


def matching_files(pattern: str) -> dict[str, RemoteFile]:
    """The files that match a URL with `*`, `?`, `[…]` or `**`, by their URLs, sorted."""
    scheme = pattern.partition("://")[0]
    with remote(pattern) as (filesystem, path):
        filesystem.invalidate_cache()
        found = filesystem.glob(path, detail=True)
        if not found and (missing := _missing(pattern)) != "file or folder":
            raise UserError(f"{shown_url(pattern)}: there is no such {missing}")
        return {
            f"{scheme}://{full.lstrip('/')}": _remote_file(info)
            for full, info in sorted(found.items())
            if info.get("type") != "directory"
        }


def _remote_file(info: Mapping[str, Any]) -> RemoteFile:
    tag = next((str(info[name]) for name in TAGS if info.get(name) is not None), "")
    return RemoteFile(int(info.get("size") or 0), tag)


def has_file(folder: str | Path, name: str) -> bool:
    """Whether a folder, of this machine or behind a URL, holds a file of this name."""
    url = url_of(folder)
    if url is None:
        return (local_path(folder) / name).exists()
    return "" in remote_files(f"{url}/{name}")


def local_file(path: str | Path) -> Path:
    """A file to read: itself, or the copy of one behind a URL. A path of this machine need not be there.

    Raises UserError for a URL of nothing, or of a folder.
    """
    url = url_of(path)
    if url is None:
        return local_path(path)
    found = remote_files(url)
    if "" not in found:
        kind = "is a folder, not a file" if found else f"there is no such {_missing(url)}"
        raise UserError(f"{shown_url(url)}: {kind}")
    return copied(url, {"": found[""]})


def local_folder(path: str | Path, wanted: Sequence[str] = ("*",), unwanted: Sequence[str] = ()) -> Path:
    """A folder to read: itself, or the copy of one behind a URL.

    wanted, unwanted: patterns of names in it, by which the files to copy are chosen (`*` matches slashes, too).
    Raises UserError for a URL of nothing, or of a file.
    """
    url = url_of(path)
    return local_path(path) if url is None else copied_folder(url, remote_files(url), wanted, unwanted)


def copied_folder(
    url: str, files: Mapping[str, RemoteFile], wanted: Sequence[str] = ("*",), unwanted: Sequence[str] = ()
) -> Path:
    """As `local_folder`, of a URL whose files are known. files: as `remote_files` gives them."""
    if not files or "" in files:
        raise UserError(
            f"{shown_url(url)}: {'is a file, not a folder' if files else f'there is no such {_missing(url)}'}"
        )
    return copied(url, {name: file for name, file in files.items() if matches(name, wanted, unwanted)})


def matches(name: str, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> bool:
    """Whether a name is one of the wanted patterns, and of no unwanted one."""
    return any(fnmatch.fnmatchcase(name, p) for p in wanted) and not any(fnmatch.fnmatchcase(name, p) for p in unwanted)


def copied_each(files: Mapping[str, RemoteFile]) -> dict[str, Path]:
    """Copies of files, by URL, several at a time; each is kept by itself."""
    with (
        _said(f"{len(files):,} files", sum(file.size for file in files.values())),
        ThreadPoolExecutor(COPIES_AT_A_TIME) as pool,
    ):
        made = pool.map(lambda url: copied(url, {"": files[url]}, said=False), files)
        return dict(zip(files, made, strict=True))


def copied(url: str, files: Mapping[str, RemoteFile], *, said: bool = True) -> Path:
    """The copy of these files behind a URL, made if it is not there yet; one process makes it, the others wait.

    said: what takes some time is said.
    """
    for name in files:
        _refuse_dots(f"{url}/{name}")
    identity = {name: [file.size, file.tag] for name, file in files.items()}
    folder, place = place_in_cache(url, identity)
    if folder.exists():
        return place
    partial = folder.with_name(f".{folder.name}.partial")
    with locked(folder):
        if not folder.exists():
            shutil.rmtree(partial, ignore_errors=True)
            (partial / place.relative_to(folder)).parent.mkdir(parents=True)
            if "" not in files:
                (partial / place.relative_to(folder)).mkdir()
            with _said(url, sum(file.size for file in files.values())) if said else contextlib.nullcontext():
                download(url, {name: partial / place.relative_to(folder) / name for name in files})
            partial.rename(folder)
    return place


def version_of(path: Path) -> int | str:
    """What tells a file from another of its name: its time of change in nanoseconds; of a copy, whose time is that of
    copying, its key in the cache."""
    root = cache_folder()
    return path.relative_to(root).parts[0] if path.is_relative_to(root) else path.stat().st_mtime_ns


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the block this process alone, of all of this machine, works on a folder of the cache."""
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"{folder.parent}: cannot be written: {error.strerror or error}; BOTHWAYS_CACHE names another"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _said(what: str, size: int) -> Iterator[None]:
    """Say what is copied, where that takes some time. what: URLs, or a number of files."""
    line = f"copying {shown_url(what)}, {size / 1e6:,.1f} MB"
    if size >= SAID_BYTES:
        print_note(line)
    with waiting(f"{line} …"):
        yield


def download(url: str, places: Mapping[str, Path]) -> None:
    """Write files below a URL to local places. places: by name; "" is the URL's own file."""
    for place in places.values():
        place.parent.mkdir(parents=True, exist_ok=True)
    with remote(url) as (filesystem, path):
        names = [f"{path}/{name}" if name else path for name in places]
        filesystem.get(names, [str(place) for place in places.values()])


def upload(url: str, places: Mapping[str, Path]) -> None:
    """Write local files to their names below a URL, all at once. places: by name; "" is the URL itself."""
    if not places:
        return
    with remote(url, "written") as (filesystem, path):
        names = [f"{path}/{name}" if name else path for name in places]
        for folder in {filesystem._parent(name) for name in names} if _has_folders(filesystem) else ():
            filesystem.makedirs(folder, exist_ok=True)
        filesystem.put([str(place) for place in places.values()], names)


def _has_folders(filesystem: Any) -> bool:
    """Whether a file's folder has to be made first, as object stores do not want it."""
    protocols = filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)
    return not set(protocols) & {*EXTRA_OF, "hf"}


def remove(url: str, names: Collection[str]) -> None:
    """Remove files below a URL; those that are gone already are none's loss."""
    for name in names:
        with remote(url, "written") as (filesystem, path), contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(f"{path}/{name}" if name else path)


def read_ranges(urls: Sequence[str], ranges: Sequence[tuple[int, int | None]]) -> list[bytes]:
    """Bytes START to END - 1 of files behind URLs, all at once; `(-N, None)` are the last N bytes, or all of fewer.

    urls: of one file system, one for each range.
    """
    if not urls:
        return []
    with remote(urls[0]) as (filesystem, _):
        paths = [filesystem._strip_protocol(url) for url in urls]
        starts, ends = zip(*ranges, strict=True)
        found: list[bytes] = filesystem.cat_ranges(paths, list(starts), list(ends), on_error="raise")
    return found
