"""The texts of a file, each with its place: the lines of a text file, or a column of a table."""

from __future__ import annotations

from pathlib import Path

from bothways.data.tables import TableOptions, is_labelled_table, read_rows
from bothways.errors import UserError, closest, option
from bothways.verbs.printing import say
from bothways.verbs.text_arguments import file_lines


def placed_texts(path: Path, encoding: str, column: str | None, usual: str = "text") -> list[tuple[str, str]]:
    """`(file:line, text)` of each text that is not empty. column: of a table, the usual one where it is None.

    Raises UserError for a file without any text, and for a column of a file that is no table.
    """
    if is_labelled_table(path):
        name = column or usual
        rows = read_rows(path, options=TableOptions(say=say, encoding=encoding))
        if (lacking := next((row for row in rows if name not in row.values), None)) is not None:
            present = [str(key) for key in lacking.values if key is not None]
            raise UserError(
                f"{lacking.source}: no column {name!r}{closest(name, present)}; columns present: {', '.join(present)} "
                f"({option('text_column')} names one)"
            )
        lines = [(row.source, row.text(name)) for row in rows]
    elif column is not None:
        raise UserError(f"{option('text_column', column)}: {path} is read line by line, it has no columns")
    else:
        numbered = enumerate(file_lines(path, encoding), 1)
        lines = [(f"{path}:{number}", line) for number, line in numbered if line.strip()]
    if not lines:
        raise UserError(f"{path}: no text in it")
    return lines
