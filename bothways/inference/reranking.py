"""Texts in order of how well a pair classifier or regressor, a cross-encoder, finds them to go with a query.

Shapes: N texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bothways.data.tables import Row
from bothways.errors import UserError, option
from bothways.inference.loaded import LoadedModel
from bothways.inference.predict import predict_rows
from bothways.inference.texts import Texts
from bothways.option_checks import require_count
from bothways.progress import OnProgress, no_progress
from bothways.tasks.base import shortened_list
from bothways.tasks.results import Result

# Labels of pairs that go together, in the data sets that cross-encoders are trained on; the first that a model has.
RELEVANT_LABELS = ("1", "True", "yes", "relevant", "entailment", "duplicate", "paraphrase", "positive", "LABEL_1")


@dataclass(frozen=True, repr=False)
class Ranked(Result):
    """A text in its place. index: its number among the texts asked, from 0. score: of a regressor its number, of a
    classifier the probability of the label of pairs that go together, 0 to 1."""

    text: str
    index: int
    score: float


def rerank_texts(
    model: LoadedModel,
    queries: Texts,
    texts: Texts,
    top_k: int | None,
    label: str | None = None,
    on_progress: OnProgress = no_progress,
) -> Any:
    """The texts, those that go best with the query first, at most `top_k` of them; of many queries a list each.

    label: whose probability orders them; by default the first of `RELEVANT_LABELS` that the model has.
    Raises UserError for a model that is no classifier or regressor of pairs, and for labels that do not tell.
    """
    require_count(**({} if top_k is None else {"top_k": top_k}))
    task = model.task("classify")
    if model.reads_pairs is False:
        raise UserError(f"{model.checkpoint.source} was fine-tuned on single texts, and reranking reads pairs")
    chosen = _label(model, label) if len(task.labels) > 1 else None
    asked, among = (model.asked(values, "rerank", pairs=False) for values in (queries, texts))
    columns = task.with_options(text_column="text", pair_column="pair")
    rows = [
        Row({"text": query, "pair": text}, f"text {number}")
        for query in asked.texts
        for number, text in enumerate(among.texts, 1)
    ]
    predicted = predict_rows(model, rows, columns, on_progress)
    scores = [prediction.value if chosen is None else prediction.scores[chosen] for prediction in predicted]
    size = len(among.texts)
    return asked.given(
        [_ranked(among.texts, scores[n * size : (n + 1) * size], top_k) for n in range(len(asked.texts))]
    )


def _label(model: LoadedModel, label: str | None) -> str:
    labels = model.task("classify").labels
    if label is not None and label not in labels:
        raise UserError(f"{option('label', label)}: the model's labels are {shortened_list(labels)}")
    chosen = label or next((known for known in RELEVANT_LABELS if known in labels), None)
    if chosen is None:
        raise UserError(
            f"{model.checkpoint.source} has the labels {shortened_list(labels)}; {option('label')} says which of them "
            "is that of texts that go with the query"
        )
    return chosen


def _ranked(texts: Sequence[Any], scores: Sequence[float], top_k: int | None) -> list[Ranked]:
    order = sorted(range(len(texts)), key=lambda index: -scores[index])[:top_k]
    return [Ranked(texts[index], index, float(scores[index])) for index in order]
