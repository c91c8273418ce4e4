"""Rows of questions, and the answers that perfect scores give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bothways.data.encoded import Encoded
from bothways.data.tables import Row
from bothways.tasks.answer import Answer, AnswerTask
from bothways.text.tokenizer import Tokenizer


def row(**values: Any) -> Row:
    return Row({"question": "where?", **values}, "row 1")


def perfect(encoded: Sequence[Encoded]) -> list[np.ndarray]:
    """The scores of a model that is sure of every target."""
    scores = []
    for one in encoded:
        sure = np.zeros((len(one.input_ids), 2), dtype=np.float32)
        sure[one.targets["start"], 0] = sure[one.targets["end"], 1] = 9
        scores.append(sure)
    return scores


def found_again(task: AnswerTask, asked: Row, tokenizer: Tokenizer, max_length: int) -> Answer:
    encoded = task.add_targets(task.encode([asked], tokenizer, max_length), [asked])
    assert max(len(one.input_ids) for one in encoded) <= max_length
    return task.decode(perfect(encoded), encoded, asked)
