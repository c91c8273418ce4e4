"""Results as a server writes them, back as the Predictor gives them."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bothways.inference.language import Suggestion
from bothways.inference.masked import Fill
from bothways.inference.reranking import Ranked
from bothways.inference.scoring import TextScore, TokenProbability
from bothways.inference.vectors import DistanceMatch, DotMatch, Match
from bothways.pages.explanation import Explanation
from bothways.tasks.answer import Answer
from bothways.tasks.choose import Choice
from bothways.tasks.classifications import Classification, MultiClassification, Regression
from bothways.tasks.entities import Entity

ReadResult = Callable[[Any], Any]


def classification_of(value: Mapping[str, Any]) -> Classification | MultiClassification | Regression:
    """What a classifier said of a text."""
    if "value" in value:
        return Regression(value["value"])
    if "labels" in value:
        return MultiClassification(value["labels"], value["scores"])
    return Classification(value["label"], value["scores"])


def answer_of(value: Mapping[str, Any]) -> Answer:
    """An answer with its alternatives; JSON has no infinite margin."""
    margin = value.get("margin")
    if margin is None:
        margin = -math.inf if value["no_answer_probability"] == 1 and not value.get("alternatives") else math.inf
    others = tuple(map(answer_of, value.get("alternatives", ())))
    names = ("text", "start", "end", "probability", "no_answer_probability")
    return Answer(**{name: value[name] for name in names}, alternatives=others, margin=margin)


def entities_in(value: list[Any]) -> list[Entity]:
    """The entities of a text."""
    return [Entity(**entity) for entity in value]


def fills_of(value: list[Any]) -> list[list[Fill]]:
    """The fills of each mask of a text."""
    return [[Fill(**fill) for fill in of_mask] for of_mask in value]


def choice_of(value: Mapping[str, Any]) -> Choice:
    """What was chosen."""
    return Choice(**value)


def matches_of(value: list[Any]) -> list[Match]:
    """The texts most like a query."""
    kinds = {"dot": DotMatch, "distance": DistanceMatch}
    return [next((kind for name, kind in kinds.items() if name in match), Match)(**match) for match in value]


def ranked_of(value: list[Any]) -> list[Ranked]:
    """The texts in order."""
    return [Ranked(**ranked) for ranked in value]


def suggestions_of(value: list[Any]) -> list[Suggestion]:
    """The words that may come next."""
    return [Suggestion(**suggestion) for suggestion in value]


def text_score_of(value: Mapping[str, Any]) -> TextScore:
    """How likely a text is."""
    lists = {name: [TokenProbability(**token) for token in value[name]] for name in ("tokens", "next", "alternatives")}
    return TextScore(**{**value, **lists})


def vectors_of(value: Mapping[str, Any]) -> np.ndarray:
    """float32 `[N, H]`, of a text alone `[H]`."""
    return np.frombuffer(base64.b64decode(value["float32"]), "<f4").astype(np.float32).reshape(value["shape"])


def explanation_of(value: dict[str, Any]) -> Explanation:
    """What a page is made of."""
    return Explanation(value)
