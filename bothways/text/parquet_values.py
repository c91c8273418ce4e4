"""Arrow's values as Python's, also where Python has no such value: nanoseconds, dates after the year 9999."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

ROW_ERRORS = (UnicodeDecodeError, ValueError, OverflowError)


def python_values(batch: pa.RecordBatch) -> list[dict[str, Any] | UnicodeDecodeError]:
    """The batch's rows as dictionaries; the error in place of a row with text that is not UTF-8.

    A time that Python's datetime cannot hold is a text, as ISO 8601 has it; so is every time with nanoseconds, whether
    pandas is installed or not. Where names repeat the last column counts.
    """
    names = batch.schema.names
    rows: list[dict[str, Any] | UnicodeDecodeError] = []
    columns = [_column(column) for column in batch.columns]
    for values in zip(*columns, strict=True) if columns else ():
        error = next((value for value in values if isinstance(value, UnicodeDecodeError)), None)
        rows.append(error or dict(zip(names, values, strict=True)))
    return rows


def _column(column: pa.Array) -> list[Any]:
    if not _has_nanoseconds(column.type):
        try:
            values: list[Any] = column.to_pylist()
            return values
        except ROW_ERRORS:
            pass
    values = []
    for scalar in column:
        try:
            values.append(_value(scalar))
        except UnicodeDecodeError as error:
            values.append(error)
    return values


def _has_nanoseconds(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_has_nanoseconds(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_temporal(kind)) and getattr(kind, "unit", "") == "ns"


def _value(scalar: pa.Scalar) -> Any:
    """The Python value of a scalar. Raises UnicodeDecodeError."""
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.MapScalar):
        return [(_value(entry["key"]), _value(entry["value"])) for entry in scalar.values]
    if isinstance(scalar, pa.StructScalar):
        return {field.name: _value(scalar[number]) for number, field in enumerate(scalar.type)}
    if isinstance(scalar, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
        return [_value(item) for item in scalar.values]
    if _has_nanoseconds(scalar.type):
        return _time_text(scalar)
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError):
        return _time_text(scalar)


def _time_text(scalar: pa.Scalar) -> str:
    """A time as text; numpy knows years that neither Python nor Arrow writes."""
    if pa.types.is_time(scalar.type):
        return str(scalar.cast(pa.string()).as_py())
    text = str(pa.array([scalar]).to_numpy(zero_copy_only=False)[0])
    return f"{text}+00:00" if getattr(scalar.type, "tz", None) else text
