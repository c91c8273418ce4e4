"""The texts of a file, each with its place: the lines of a text file, or a table's column `text`."""

from __future__ import annotations

from pathlib import Path

from bothways.data.tables import TableOptions, is_labelled_table, read_rows
from bothways.errors import UserError
from bothways.verbs.printing import say
from bothways.verbs.text_arguments import file_lines


def placed_texts(path: Path, encoding: str) -> list[tuple[str, str]]:
    """`(file:line, text)` of each text that is not empty. Raises UserError for a file without any."""
    if is_labelled_table(path):
        rows = read_rows(path, ["text"], TableOptions(say=say, encoding=encoding))
        lines = [(row.source, row.text("text")) for row in rows]
    else:
        numbered = enumerate(file_lines(path, encoding), 1)
        lines = [(f"{path}:{number}", line) for number, line in numbered if line.strip()]
    if not lines:
        raise UserError(f"{path}: no text in it")
    return lines
