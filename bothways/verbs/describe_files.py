"""What `bothways info` says of files and folders that a user has: tables, text, predictions, and what is neither."""

from __future__ import annotations

import itertools
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from bothways.data.stream import RowStream
from bothways.data.tables import CONLL_SUFFIXES, Row, read_rows
from bothways.errors import UserError
from bothways.outputs import free_name
from bothways.parts import Parts
from bothways.text.lines import uncompressed_suffix
from bothways.text.sources import resolve_sources
from bothways.text.table_reader import TABLE_SUFFIXES
from bothways.verbs.description import Description

# Columns by which a table is known for a task, the first that it has all of; torch is not imported for this.
TASK_COLUMNS = (
    ("answer", ("question", "context", "answers")),
    ("choose", ("text", "choices", "label")),
    ("tag", ("words", "labels")),
    ("instruct", ("messages",)),
    ("instruct", ("prompt", "response")),
    ("instruct", ("question", "answer")),
    ("instruct", ("command", "result")),
    ("classify", ("text", "label")),
    ("similar", ("text", "pair")),
)
MAX_LABELS_TOLD = 8  # of a column of labels, the commonest first
MAX_LABELS = 50  # different values of a column `label`, above which they are hardly classes
MAX_ROWS_READ = 100_000  # for the counts of labels and of rows; more rows are counted by their lines


def describe_file(path: Path) -> Description:
    """A table, a text, or a file of another kind."""
    suffix = uncompressed_suffix(path)
    if suffix in TABLE_SUFFIXES:
        return _describe_table(path)
    if suffix in CONLL_SUFFIXES:
        return _describe_rows(path, "CoNLL columns", len(read_rows(path)), ["words", "labels"])
    if suffix == ".json":
        return _describe_json(path)
    if suffix in (".txt", ".md"):
        return _describe_text(path)
    size = f"{path.stat().st_size:,} bytes"
    about = "a page: open it in a browser" if suffix == ".html" else f"a {suffix or 'nameless'} file, {size}"
    readable = ", ".join((".txt", ".md", *TABLE_SUFFIXES, *CONLL_SUFFIXES, ".json"))
    lines = [f"{path}: {about}"]
    if suffix != ".html":
        lines.append(f"Bothways reads text and tables that end in {readable}")
    return Description(lines, {"file": str(path), "bytes": path.stat().st_size})


def _describe_table(path: Path) -> Description:
    stream = RowStream(path)
    rows = 0
    labels: Counter[str] = Counter()
    for row in itertools.islice(stream.rows(), MAX_ROWS_READ):
        rows += 1
        if isinstance(row, Row) and row.values.get("label") is not None:
            labels[str(row.values["label"])] += 1
    if rows == MAX_ROWS_READ:  # the file's lines are counted in place of the rest: quotes may hold some of them
        rows = stream.count()
    found = _describe_rows(path, "a table", rows, stream.columns)
    lines = [*found.lines, *(f"{path}: {remark}" for remark in stream.remarks)]
    if labels:
        shown = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(MAX_LABELS_TOLD))
        more = len(labels) - MAX_LABELS_TOLD
        lines.insert(1, f"labels: {shown}" + (f" and {more:,} more" if more > 0 else ""))
    if len(labels) > MAX_LABELS:
        lines.append("so many labels are hardly classes: is it a number? --problem-type regression learns numbers")
    bad = path.with_name(f"{path.name}.bad.jsonl")
    if bad.exists():
        lines.append(f"{bad}: the rows that could not be used")
    return Description(lines, {**found.facts, "labels": dict(labels)})


def _describe_rows(path: Path, kind: str, rows: int, columns: list[str]) -> Description:
    """A table of rows, and who reads it."""
    name = shlex.quote(str(path))
    lines = [f"{path}: {kind}, {rows:,} rows; columns: {', '.join(map(str, columns))}"]
    task = next((task for task, needed in TASK_COLUMNS if set(needed) <= set(columns)), None)
    if "predicted" in columns:
        lines.append("it holds predictions, in the column predicted")
    elif task is not None:
        lines.append(f"used by: bothways finetune {task} --model MODEL --train {name} --eval OTHER --out RUN")
    elif "text" in columns:
        command = f"bothways tokenizer {name} --out {free_name('vocabulary')}"
        lines.append(f"used by: {command} (its column text), or bothways classify")
    else:
        lines.append("used by: bothways finetune TASK --train; options such as --text-column name its columns")
    return Description(lines, {"table": str(path), "rows": rows, "columns": columns, "task": task})


def _describe_json(path: Path) -> Description:
    try:
        rows = read_rows(path)
    except UserError:
        return Description(
            [f"{path}: a JSON file, but not of questions and answers as SQuAD has them"], {"file": str(path)}
        )
    return _describe_rows(path, "SQuAD json", len(rows), list(rows[0].values))


def _describe_text(path: Path) -> Description:
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = words = 0
        for line in file:
            lines, words = lines + 1, words + len(line.split())
    name = shlex.quote(str(path))
    facts = {"text": str(path), "lines": lines, "words": words}
    command = f"bothways tokenizer {name} --out {free_name('vocabulary')}"
    return Description([f"{path}: text, {lines:,} lines, {words:,} words"], facts, command)


def describe_folder(path: Path) -> Description:
    """A folder of text, or of something else."""
    try:
        sources = resolve_sources([str(path)])
    except UserError:
        names = sorted(other.name for other in path.iterdir())
        held = ", ".join(names[:6]) + (f" and {len(names) - 6:,} more" if len(names) > 6 else "")
        line = (
            f"{path}: a folder of nothing that Bothways made or reads: {held}" if names else f"{path}: an empty folder"
        )
        return Description([line], {"folder": str(path), "files": len(names)})
    kinds = Counter(source.kind for source in sources)
    size = sum(source.size for source in sources)
    told = ", ".join(f"{count:,} {suffix}" for suffix, count in kinds.most_common())
    others = ", ".join(f"{count:,} {suffix}" for source in sources for suffix, count in source.others)
    lines = [f"{path}: a folder of text, {len(sources):,} files ({told}), {size / 1e6:,.1f} MB"]
    if others:
        lines.append(f"not read: {others}")
    facts: dict[str, Any] = {"folder": str(path), "files": len(sources), "kinds": dict(kinds), "bytes": size}
    return Description(lines, facts, f"bothways tokenizer {shlex.quote(str(path))} --out {free_name('vocabulary')}")


def describe_parts(path: Path) -> Description:
    """The parts of a store, or of a large table's results, of a job that has not finished."""
    out = path.with_name(path.name.removesuffix(".parts"))
    parts = Parts(out)
    parts.load()
    done, kind = len(parts.done()), parts.manifest.get("kind")
    what = "a token store" if kind == "store" else f"the results for {parts.manifest['job'].get('input', 'a table')}"
    lines = [f"{path}: parts of {what}, which has not finished: {done:,} of {parts.count:,} parts are done"]
    lines.append(f"the same command goes on with it; bothways join {shlex.quote(str(out))} says which are missing")
    return Description(lines, {"parts": str(path), "done": done, "of": parts.count, "job": parts.manifest["job"]})
