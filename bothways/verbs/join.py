"""`bothways join OUT`: one result of all the parts of a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.errors import UserError
from bothways.parts import Parts, commands_for, missing_in_words
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
    out = Path(str(Path(options.result)).removesuffix(".parts"))
    parts = Parts(out)
    if not parts.folder.is_dir():
        there = f"; {out} is there already" if out.exists() else ""
        raise UserError(f"{parts.folder}: no such folder of parts{there}")
    parts.load()
    if missing := parts.missing():
        print("\n".join(commands_for(missing, parts.manifest)))
        raise UserError(f"{parts.folder}: {missing_in_words(missing, parts.count)}; the commands above make them")
    if parts.manifest.get("kind") == "store":
        _join_store(out)
    else:
        _join_table(out)


def _join_store(out: Path) -> None:
    from bothways.data.prepare import join_store
    from bothways.data.store_parts import StoreParts
    from bothways.verbs.describe_text import store_lines

    print("\n".join(store_lines(join_store(StoreParts.load(out)))))


def _join_table(out: Path) -> None:
    from bothways.inference.bulk import BulkOutput
    from bothways.verbs.bulk import say_counts

    output = BulkOutput.load(out)
    counts = output.merge()
    print(f"{out}: {counts.rows - counts.bad:,} rows")
    say_counts(counts, output)
