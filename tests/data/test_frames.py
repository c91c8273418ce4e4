"""Tables and columns of other libraries as rows and lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from bothways.data.frames import frame_column, frame_columns, frame_records, listed_values
from bothways.data.tables import read_rows
from bothways.errors import UserError
from tests.inference.test_one_and_many import OnlyArrow

COLUMNS: dict[str, list[Any]] = {"text": ["a", None], "tags": [["x"], ["y", "z"]], "n": [1, 2]}
ARROW = pa.table(COLUMNS)
TABLES = {
    "pandas": pd.DataFrame(COLUMNS),
    "pandas by arrow": ARROW.to_pandas(types_mapper=pd.ArrowDtype),
    "polars": pl.DataFrame(COLUMNS),
    "pyarrow": ARROW,
    "record batch": ARROW.to_batches()[0],
    "any other": OnlyArrow(ARROW),
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_and_columns(name: str) -> None:
    table = TABLES[name]
    assert frame_columns(table) == ["text", "tags", "n"]
    assert [list(tags) for tags in frame_column(table, "tags")] == COLUMNS["tags"]
    assert [record["n"] for record in frame_records(table)] == [1, 2]
    first, second = read_rows(table, ["text", "n"])
    assert (first.text("text"), first.number("n"), second.items("tags")) == ("a", 1.0, ["y", "z"])
    assert second.source == "row 2"
    assert second.values["text"] is None
    with pytest.raises(UserError, match="row 2: column 'text' is missing"):
        second.text("text")


def test_what_is_missing_is_none() -> None:
    missing = [float("nan"), None, pd.NA, pd.NaT, np.float32("nan"), np.ma.masked]
    assert [row.values["x"] for row in read_rows([{"x": value} for value in missing])] == [None] * 6
    frame = pd.DataFrame({"text": ["a"], "x": pd.Series([pd.NA], dtype="Int64"), "day": [pd.NaT], "share": [np.nan]})
    (row,) = read_rows(frame)
    assert row.values == {"text": "a", "x": None, "day": None, "share": None}


def test_columns_of_several_types_and_names_that_are_numbers() -> None:
    frame = pd.DataFrame({"text": ["a", 5], 0: [{"k": 1}, "x"]})
    assert frame_columns(frame) == ["text", 0]
    assert [row.values[0] for row in read_rows(frame)] == [{"k": 1}, "x"]
    with pytest.raises(UserError, match="row 1: no column 'body'; columns present: text, 0"):
        read_rows(frame, ["body"])
    with pytest.raises(UserError, match="the table has 2 columns 'a'; rename all but one"):
        frame_columns(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))


def test_what_is_no_table() -> None:
    nothing: list[Any] = [
        [1],
        "text",
        5,
        None,
        {"a": [1]},
        pd.Series(["a"]),
        pl.Series(["a"]),
        pa.array(["a"]),
        ARROW["text"],
    ]
    assert [frame_columns(value) for value in nothing] == [None] * len(nothing)
    lists = (pd.Series(["a"]), pl.Series(["a"]), pa.array(["a"]), pa.chunked_array([["a"]]), np.array(["a"]), iter("a"))
    assert [listed_values(value) for value in lists] == [["a"]] * len(lists)
    assert listed_values(5) is None
    assert listed_values(np.array("a")) is None
