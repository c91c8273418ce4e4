"""What a model says of a text, as plain values and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from bothways.errors import UserError
from bothways.option_checks import rounded_repr

ROW_COLUMN = "row"  # of `to_table`, where a text has several results


class Result:
    """A result is a dataclass without a `__repr__` of its own, and can be a line of JSON or a row of a table."""

    def __repr__(self) -> str:
        return rounded_repr(self)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, of strings, numbers, lists and dictionaries only."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def to_table(results: Any) -> pa.Table:
    """Results as an Arrow table, whose `to_pandas()` and `polars.from_arrow` make a DataFrame: a column for each field.

    results: of one text or of many. Where a text has a list of them (`tag`, `similar`, `suggest`, and `fill`, of which
    a mask has one), `row` is the number of the text, or mask, from 0, and one without any result has no row. What a
    task of your own predicts is the column `predicted`. Raises UserError for anything deeper, as of `fill` of many
    texts, and for vectors, which are arrays already.
    """
    listed = results if isinstance(results, list | tuple) else [results]
    if not any(isinstance(entry, list | tuple) for entry in listed):
        return _table([_record(entry) for entry in listed])
    if not all(isinstance(entry, list | tuple) for entry in listed):
        raise UserError("to_table: some of the results are lists and some are not; give those of one call")
    return _table([{ROW_COLUMN: row, **_record(entry)} for row, of_text in enumerate(listed) for entry in of_text])


def _record(result: Any) -> dict[str, Any]:
    if isinstance(result, Result):
        return result.to_dict()
    if isinstance(result, str | int | float):
        return {"predicted": result}
    cure = "; give those of a text at a time" if isinstance(result, list | tuple) else ""
    raise UserError(f"to_table: expected results of a model, found a {type(result).__name__}{cure}")


def _table(records: list[dict[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for record in records for name in record))
    return pa.table({name: [record.get(name) for record in records] for name in names})
