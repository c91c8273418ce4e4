"""`bothways join OUT`: one result of all the parts of a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.errors import UserError, as_shown
from bothways.mirrors import output_file, output_folder
from bothways.parts import Parts, commands_for, missing_in_words
from bothways.remote_files import local_path, place_in_cache, remote_files, shown_url, url_of
from bothways.shared_parts import SharedParts
from bothways.verbs.flags import parse
from bothways.verbs.options import Positional


@dataclass(frozen=True)
class JoinArguments:
    """result: what the parts become, a store's directory or a file, as it was named by --out."""

    result: Positional[str]


def run_join(arguments: Sequence[str]) -> None:
    """`bothways join OUT`."""
    options = parse(
        "join",
        JoinArguments,
        arguments,
        "Make one result of all the parts of a job. Example: bothways join store",
    )
    url = url_of(options.result)
    if url is not None:
        return _join_behind(url.removesuffix(".parts"))
    out = Path(str(local_path(options.result)).removesuffix(".parts"))
    parts = Parts(out)
    if not parts.exists():
        there = f"; {out} is there already" if out.exists() else ""
        raise UserError(f"{parts.folder}: no such folder of parts{there}")
    _join(parts, out)


def _join_behind(url: str) -> None:
    """Join the parts behind a URL, and remove them when the result is there."""
    from bothways.data.store_writer import STORE_FILES
    from bothways.inference.bulk import BAD_ROWS

    _, place = place_in_cache(url, "output")
    parts = SharedParts(url, place)
    if not parts.exists():
        there = f"; {shown_url(url)} is there already" if remote_files(url) else ""
        raise UserError(f"{shown_url(url)}.parts: no such folder of parts{there}")
    parts.load()
    if parts.manifest.get("kind") == "store":
        made = output_folder(url, STORE_FILES)
    else:
        made = output_file(url, overwrite=True, side_suffixes=(BAD_ROWS,))
    with made as out:
        _join(parts, out, url)
    parts.remove()


def _join(parts: Parts, out: Path, url: str | None = None) -> None:
    parts.load()
    if missing := parts.missing():
        print("\n".join(commands_for(missing, parts.manifest)))
        raise UserError(f"{parts.folder}: {missing_in_words(missing, parts.count)}; the commands above make them")
    if parts.manifest.get("kind") == "store":
        _join_store(out, url)
    else:
        _join_table(out, url)


def _join_store(out: Path, url: str | None) -> None:
    from bothways.data.prepare import join_store
    from bothways.data.store_parts import StoreParts
    from bothways.verbs.describe_text import store_lines

    print("\n".join(store_lines(join_store(StoreParts.load(out, url)))))


def _join_table(out: Path, url: str | None) -> None:
    from bothways.inference.bulk import BulkOutput
    from bothways.verbs.bulk import say_counts

    output = BulkOutput.load(out, url)
    counts = output.merge()
    print(f"{as_shown(out)}: {counts.rows - counts.bad:,} rows")
    say_counts(counts, output)
