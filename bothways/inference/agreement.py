"""How near a model in int8 is to itself in float32: measured on texts before its first answer, so that a model whose
answers suffer is not used that way.

Shapes: N texts, H hidden.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.data.encoded import Encoded
from bothways.data.stream import RowStream
from bothways.data.tables import Row, read_rows
from bothways.errors import UserError
from bothways.inference import engine
from bothways.inference.texts import Text, TextColumns
from bothways.model.heads import Model
from bothways.model.task_heads import EmbeddingHead

LEAST_COSINE = (
    0.99  # of the means of hidden states, on average over the texts; MiniLM has 0.995 with AVX2, 0.998 with VNNI
)
PACKAGED_TEXTS = 32
FILE_TEXTS = 256  # of a user's file, the first that are measured on


@dataclass(frozen=True)
class Agreement:
    """cosine: of a text's mean hidden state with that in float32, on average over the texts. least: of all texts.
    labels: share of the texts with the same likeliest label; None for models that label no texts."""

    texts: int
    cosine: float
    least: float
    labels: float | None

    @property
    def is_enough(self) -> bool:
        return self.cosine >= LEAST_COSINE

    def __str__(self) -> str:
        labels = "" if self.labels is None else f", the same label for {self.labels:.1%}"
        return f"cosine {self.cosine:.4f} with float32 on {self.texts} texts{labels}"


def packaged_texts() -> list[str]:
    """Lines and pages of the packaged help desk, to measure on where the user gives no texts."""
    with resources.as_file(resources.files("bothways") / "samples" / "helpdesk") as folder:
        lines = (row.text("text") for row in read_rows(folder / "tickets-train.jsonl"))
        pages = dict.fromkeys(row.text("context") for row in read_rows(folder / "questions-train.json"))
        some = PACKAGED_TEXTS * 3 // 4
        return [*itertools.islice(lines, some), *itertools.islice(pages, PACKAGED_TEXTS - some)]


def file_texts(path: Path, columns: TextColumns) -> list[Text]:
    """The first texts, or pairs, of a table or of the lines of a .txt, `FILE_TEXTS` at most.

    Raises UserError for a file that `RowStream` does not read, a row that cannot be read, and one without the columns.
    """
    texts: list[Text] = []
    for row in itertools.islice(RowStream(path, columns.text).rows(), FILE_TEXTS):
        if not isinstance(row, Row):
            raise UserError(f"{row.source}: {row.reason}")
        first = row.text(columns.text)
        texts.append(first if columns.pair is None else (first, row.text(columns.pair)))
    return texts


def measure_agreement(exact: Model, prepared: Model, encoded: Sequence[Encoded], device: torch.device) -> Agreement:
    """exact: prepared in float32. encoded: texts as sequences."""
    vectors = [_results(model.with_head(EmbeddingHead()), encoded, device) for model in (exact, prepared)]
    cosines = (vectors[0] * vectors[1]).sum(1)
    labels = None
    if "sequence" in exact.head.abilities:
        scores = [_results(model, encoded, device) for model in (exact, prepared)]
        if scores[0].shape[1] > 1:
            labels = float((scores[0].argmax(1) == scores[1].argmax(1)).mean())
    return Agreement(len(encoded), float(cosines.mean()), float(cosines.min()), labels)


def _results(model: Model, encoded: Sequence[Encoded], device: torch.device) -> np.ndarray:
    """What the head gives each text, float32 `[N, …]`."""

    def split(scores: Tensor, sequences: Sequence[Encoded], batch: PackedBatch) -> list[np.ndarray]:
        return list(scores.float().cpu().numpy())

    return np.array(engine.run_batches(model, split, encoded, device))
