"""Tables and columns of other libraries, pandas, polars, pyarrow, DuckDB, as Python's lists; none of them is imported
but pyarrow.

A table is what has pandas' interface, or Arrow's stream of structs (`__arrow_c_stream__`), as all the others have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from bothways.errors import UserError


def frame_columns(values: Any) -> list[Any] | None:
    """The names of a table's columns; None for what is no table.

    Raises UserError for a table with two columns of a name, and for columns that Arrow has no type for.
    """
    if _is_pandas(values):
        names = list(values.columns)
    else:
        table = _arrow_table(values)
        if table is None:
            return None
        names = table.column_names
    repeated, count = Counter(names).most_common(1)[0] if names else (None, 1)
    if count > 1:
        raise UserError(f"the table has {count} columns {repeated!r}; rename all but one of them")
    return names


def frame_records(table: Any) -> list[dict[Any, Any]]:
    """The rows of a table for which `frame_columns` has names, as dictionaries."""
    if _is_pandas(table):
        records: list[dict[Any, Any]] = table.to_dict("records")
        return records
    return list(_arrow_table(table).to_pylist())  # type: ignore[union-attr]


def frame_column(table: Any, name: Any) -> list[Any]:
    """The values of a column of a table for which `frame_columns` has names."""
    column = table[name] if _is_pandas(table) else _arrow_table(table).column(name)  # type: ignore[union-attr]
    return listed_values(column) or []


def listed_values(values: Any) -> list[Any] | None:
    """The values of a column or of any other iterable; None for what is neither."""
    if hasattr(values, "to_pylist"):  # of pyarrow, whose iteration gives scalars of its own
        return list(values.to_pylist())
    if isinstance(values, Iterable) and getattr(values, "ndim", None) != 0:  # without dimensions it has no values
        return list(values)
    return list(pa.chunked_array(values).to_pylist()) if hasattr(values, "__arrow_c_stream__") else None


def _is_pandas(values: Any) -> bool:
    return hasattr(values, "iloc") and hasattr(values, "columns") and hasattr(values, "to_dict")


def _arrow_table(values: Any) -> pa.Table | None:
    """A table as pyarrow has it, without a copy; None for a column and for anything else."""
    if not hasattr(values, "__arrow_c_stream__") or hasattr(values, "iloc"):
        return None  # a Series of pandas may hold what Arrow has no type for
    try:
        column = pa.chunked_array(values)
    except (pa.ArrowException, TypeError, ValueError) as error:
        if not hasattr(values, "columns"):
            return None
        raise UserError(f"a {type(values).__name__} that Arrow cannot read: {error}; leave out that column") from error
    return pa.Table.from_struct_array(column) if pa.types.is_struct(column.type) else None
