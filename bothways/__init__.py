"""Bothways: a complete BERT system. Reads text both ways.

Importing this package imports nothing heavy; torch is loaded by the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bothways.errors import TruncationWarning, UserError, closest
from bothways.version import __version__ as __version__

if TYPE_CHECKING:
    from bothways.client.calls import ServerError
    from bothways.client.clients import AsyncClient, Client
    from bothways.comparison import Comparison, compare
    from bothways.data.prepare import PrepareOptions, prepare
    from bothways.data.store import TokenStore
    from bothways.evaluation import evaluate
    from bothways.inference.generation_options import GenerationOptions
    from bothways.inference.language import Suggestion
    from bothways.inference.masked import Fill
    from bothways.inference.reranking import Ranked
    from bothways.inference.scoring import TextScore
    from bothways.inference.vectors import Match
    from bothways.predictor import Predictor, load
    from bothways.tasks.answer import Answer
    from bothways.tasks.choose import Choice
    from bothways.tasks.classifications import Classification, MultiClassification, Regression
    from bothways.tasks.entities import Entity
    from bothways.tasks.results import to_table
    from bothways.text.tokenizer import Tokenizer
    from bothways.text.vocabulary import train_tokenizer
    from bothways.train.finetune import FinetuneResult, finetune
    from bothways.train.finetune_options import FinetuneOptions
    from bothways.train.loop import TrainResult
    from bothways.train.pretrain import pretrain
    from bothways.train.pretrain_options import PretrainOptions

_WHERE = {
    "load": "bothways.predictor",
    "Predictor": "bothways.predictor",
    "Fill": "bothways.inference.masked",
    "Match": "bothways.inference.vectors",
    "Ranked": "bothways.inference.reranking",
    "TextScore": "bothways.inference.scoring",
    "Suggestion": "bothways.inference.language",
    "GenerationOptions": "bothways.inference.generation_options",
    "Answer": "bothways.tasks.answer",
    "Choice": "bothways.tasks.choose",
    "train_tokenizer": "bothways.text.vocabulary",
    "Tokenizer": "bothways.text.tokenizer",
    "prepare": "bothways.data.prepare",
    "PrepareOptions": "bothways.data.prepare",
    "TokenStore": "bothways.data.store",
    "Classification": "bothways.tasks.classifications",
    "MultiClassification": "bothways.tasks.classifications",
    "Regression": "bothways.tasks.classifications",
    "Entity": "bothways.tasks.entities",
    "to_table": "bothways.tasks.results",
    "pretrain": "bothways.train.pretrain",
    "PretrainOptions": "bothways.train.pretrain_options",
    "TrainResult": "bothways.train.loop",
    "finetune": "bothways.train.finetune",
    "FinetuneOptions": "bothways.train.finetune_options",
    "FinetuneResult": "bothways.train.finetune",
    "evaluate": "bothways.evaluation",
    "Client": "bothways.client.clients",
    "AsyncClient": "bothways.client.clients",
    "ServerError": "bothways.client.calls",
    "compare": "bothways.comparison",
    "Comparison": "bothways.comparison",
}

__all__ = [
    "Answer",
    "AsyncClient",
    "Choice",
    "Classification",
    "Client",
    "Comparison",
    "Entity",
    "Fill",
    "FinetuneOptions",
    "FinetuneResult",
    "GenerationOptions",
    "Match",
    "MultiClassification",
    "Predictor",
    "PrepareOptions",
    "PretrainOptions",
    "Ranked",
    "Regression",
    "ServerError",
    "Suggestion",
    "TextScore",
    "TokenStore",
    "Tokenizer",
    "TrainResult",
    "TruncationWarning",
    "UserError",
    "compare",
    "evaluate",
    "finetune",
    "load",
    "prepare",
    "pretrain",
    "to_table",
    "train_tokenizer",
]


if not TYPE_CHECKING:  # else a type checker would take every name for one that there is

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module 'bothways' has no attribute {name!r}{closest(name, __all__)}")
        return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
