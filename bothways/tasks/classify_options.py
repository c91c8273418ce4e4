"""What a user can choose of `classify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bothways.errors import UserError, option

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


@dataclass(frozen=True)
class ClassifyOptions:
    """Columns of the table, and what the labels are.

    pair_column: the second text of a pair. problem_type: one label a row; several, as a list or as text with commas; or
    a number. class_weights: `balanced` (a label counts in inverse proportion to its rows) or LABEL=WEIGHT for some.
    label_names: where a row's several labels are a vector of 0 and 1, the name of each of its places, in order.
    """

    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    problem_type: ProblemType = "single_label_classification"
    class_weights: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.label_names
        if names and self.problem_type != "multi_label_classification":
            kind = option("problem_type", "multi_label_classification")
            raise UserError(f"{option('label_names')}: for vectors of 0 and 1, with {kind}")
        if len({*names, ""}) != len(names) + 1:
            raise UserError(
                f"{option('label_names')}: each place of the vectors has a name of its own, and none is empty"
            )
