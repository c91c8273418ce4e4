"""Bothways: a complete BERT system. Reads text both ways.

Importing this package imports nothing heavy; torch is loaded by the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bothways.errors import UserError
from bothways.version import __version__ as __version__

if TYPE_CHECKING:
    from bothways.inference.language import Suggestion, TextScore
    from bothways.inference.masked import Fill
    from bothways.inference.sampling import GenerationOptions
    from bothways.inference.vectors import Match
    from bothways.predictor import Predictor, load
    from bothways.tasks.answer import Answer
    from bothways.tasks.choose import Choice
    from bothways.tasks.classifications import Classification, MultiClassification, Regression
    from bothways.tasks.entities import Entity
    from bothways.tasks.results import to_table
    from bothways.train.finetune import FinetuneOptions, finetune
    from bothways.train.pretrain import pretrain
    from bothways.train.pretrain_options import PretrainOptions

_WHERE = {
    "load": "bothways.predictor",
    "Predictor": "bothways.predictor",
    "Fill": "bothways.inference.masked",
    "Match": "bothways.inference.vectors",
    "TextScore": "bothways.inference.language",
    "Suggestion": "bothways.inference.language",
    "GenerationOptions": "bothways.inference.sampling",
    "Answer": "bothways.tasks.answer",
    "Choice": "bothways.tasks.choose",
    "Classification": "bothways.tasks.classifications",
    "MultiClassification": "bothways.tasks.classifications",
    "Regression": "bothways.tasks.classifications",
    "Entity": "bothways.tasks.entities",
    "to_table": "bothways.tasks.results",
    "pretrain": "bothways.train.pretrain",
    "finetune": "bothways.train.finetune",
    "FinetuneOptions": "bothways.train.finetune",
    "PretrainOptions": "bothways.train.pretrain_options",
}

__all__ = [
    "Answer",
    "Choice",
    "Classification",
    "Entity",
    "Fill",
    "FinetuneOptions",
    "GenerationOptions",
    "Match",
    "MultiClassification",
    "Predictor",
    "PretrainOptions",
    "Regression",
    "Suggestion",
    "TextScore",
    "UserError",
    "finetune",
    "load",
    "pretrain",
    "to_table",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bothways' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
