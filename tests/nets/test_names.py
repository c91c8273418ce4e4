"""The Python names that README.md and docs/ promise: what there is, its parameters and defaults, in this order.

Annotations are left out: they name classes, which may be called otherwise inside.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import bothways as bw
from bothways import sklearn
from tests.nets.golden import check

METHODS = [
    "fill",
    "next_sentence",
    "classify",
    "answer",
    "tag",
    "choose",
    "embed",
    "similar",
    "hidden_states",
    "predict",
    "generate",
    "stream",
    "score",
    "suggest",
    "chat",
    "explain",
]
ATTRIBUTES = ["config", "tokenizer", "labels", "report", "sequence_length", "device", "precision", "model"]
ESTIMATORS = ("BertClassifier", "BertRegressor", "BertTagger", "BertEmbedder")


def parameters(function: Any) -> str:
    """A signature without annotations."""
    signature = inspect.signature(function)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    shown = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    return f"({', '.join(_defaulted(one) for one in shown.parameters.values())})"


def _defaulted(one: inspect.Parameter) -> str:
    """`name=default`; of a function as the default only that there is one."""
    return f"{one.name}=function" if inspect.isfunction(one.default) else str(one)


def _described(name: str) -> list[str]:
    value = getattr(bw, name)
    if dataclasses.is_dataclass(value):
        return [f"dataclass {name}{parameters(value)}"]
    if isinstance(value, type) and issubclass(value, Exception):
        return [f"error {name}: {' '.join(one.__name__ for one in value.__mro__[1:-2])}"]
    return [f"class {name}" if isinstance(value, type) else f"function {name}{parameters(value)}"]


def snapshot(model: Path) -> str:
    """Everything as text; model: any that `bw.load` opens."""
    loaded = bw.load(model, device="cpu")
    lines = ["# bothways.__all__", *(line for name in sorted(bw.__all__) for line in _described(name))]
    lines += ["", "# methods of what bw.load gives", *(f"{one}{parameters(getattr(loaded, one))}" for one in METHODS)]
    lines += ["", "# attributes of what bw.load gives", *(one for one in ATTRIBUTES if hasattr(loaded, one))]
    lines += ["", "# what m.explain gives", f"write{parameters(loaded.explain('the router').write)}"]
    lines += ["", "# bothways.sklearn", *(f"{one}{parameters(getattr(sklearn, one))}" for one in ESTIMATORS)]
    return "\n".join(lines) + "\n"


def test_public_names_and_their_parameters_are_what_they_were(pretraining: Path) -> None:
    check("names.txt", snapshot(pretraining), "names")


def test_every_public_name_is_listed() -> None:
    assert set(bw.__all__) <= set(dir(bw))
