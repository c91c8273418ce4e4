"""A loaded model and what it can be asked: `bw.load(...)`.

Shapes: T_i tokens of text i, H hidden, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.data.packing import PackedBatch, pack_sequences
from bothways.errors import TruncationWarning, UserError
from bothways.inference import engine
from bothways.model.checkpoint import Checkpoint, LoadReport, load_checkpoint
from bothways.model.config import BertConfig
from bothways.model.heads import MaskedLMHead, PretrainingHead, SequenceHead
from bothways.tasks.base import Encoded, join_segments
from bothways.tasks.classify import Classification, ClassifyTask
from bothways.text.lines import is_unicode
from bothways.text.wordpiece import WordPieceTokenizer
from bothways.train.options import choose_device

Text = str | tuple[str, str]


@dataclass(frozen=True)
class Fill:
    """A piece that could stand at a `[MASK]`, and its probability."""

    token: str
    probability: float


class Predictor:
    """One model, ready to answer. Texts may be pairs `(a, b)`; none is padded, and none changes another's result."""

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.device = choose_device(device)
        self.model = checkpoint.model.to(self.device).eval()

    @property
    def config(self) -> BertConfig:
        return self.checkpoint.config

    @property
    def tokenizer(self) -> WordPieceTokenizer:
        return self.checkpoint.tokenizer

    @property
    def report(self) -> LoadReport | None:
        """What became of every tensor in the file."""
        return self.checkpoint.report

    @property
    def labels(self) -> list[str]:
        """The labels of a classifier, in the order of its scores; empty for other models."""
        return list(self.checkpoint.state.get("labels", []))

    @property
    def sequence_length(self) -> int:
        """The tokens a text may have: what the model was fine-tuned with, or the size of its position table."""
        return int(self.checkpoint.state.get("sequence_length", self.config.max_position_embeddings))

    def hidden_states(self, texts: Text | Sequence[Text]) -> list[Tensor]:
        """The last layer's hidden states, float32 `[T_i, H]` for each text, `[CLS]` and `[SEP]` included.

        Raises UserError for a text of more tokens than the position table has rows.
        """

        def split(hidden: Tensor, rows: Sequence[Encoded], batch: PackedBatch) -> Sequence[Tensor]:
            return hidden.float().cpu().split(batch.lengths.tolist())

        return engine.run(self.model.encoder, split, self._encode(self._checked(texts)), self.device)

    def fill(self, text: Text, top_k: int = 5) -> list[list[Fill]]:
        """For each `[MASK]` in the text, in order, the `top_k` likeliest pieces.

        Raises UserError for a text without a mask and for a model without a masked-LM head.
        """
        self._require((PretrainingHead, MaskedLMHead), "masked-LM", "fill")
        if top_k < 1:
            raise UserError(f"--top-k {top_k}: expected at least 1")
        (encoded,) = self._encode(self._checked([text]))
        rows = np.flatnonzero(encoded.input_ids == self.tokenizer.mask_id)
        if not len(rows):
            raise UserError(f"no [MASK] in {text!r}: write [MASK] where a word is to be filled in")
        scores = self._scores(encoded, {"mlm_rows": torch.from_numpy(rows)}).mlm
        probabilities, ids = scores.float().softmax(-1).topk(min(top_k, scores.shape[-1]))
        return [
            [Fill(self.tokenizer.token(index), value) for index, value in zip(row_ids, row, strict=True)]
            for row_ids, row in zip(ids.tolist(), probabilities.tolist(), strict=True)
        ]

    def next_sentence(self, a: str, b: str) -> float:
        """The probability that `b` follows `a` (`next_sentence_label` 0)."""
        self._require((PretrainingHead,), "next-sentence", "next_sentence")
        (encoded,) = self._encode(self._checked([(a, b)]))
        scores = self._scores(encoded, {"mlm_rows": torch.zeros(0, dtype=torch.long)}).nsp
        return float(scores.float().softmax(-1)[0, 0])

    def classify(
        self, texts: Text | Sequence[Text], on_progress: Callable[[int], None] = lambda rows: None
    ) -> list[Classification]:
        """A label and the probabilities of all labels for each text.

        A text longer than the model was fine-tuned for loses its end; a `TruncationWarning` says how many did.
        """
        self._require((SequenceHead,), "classification", "classify")
        task = ClassifyTask.from_state(self.checkpoint.state)
        encoded = join_segments(self.tokenizer, self._checked(texts), self.sequence_length)
        cut = sum(bool(one.truncated) for one in encoded)
        if cut:
            message = (
                f"{cut:,} of {len(encoded):,} texts are longer than {self.sequence_length} tokens and were cut short"
            )
            warnings.warn(message, TruncationWarning, stacklevel=2)

        def split(scores: Tensor, rows: Sequence[Encoded], batch: PackedBatch) -> Sequence[Classification]:
            return task.decode(scores, rows)

        return engine.run(self.model, split, encoded, self.device, on_progress=on_progress)

    @torch.inference_mode()
    def _scores(self, encoded: Encoded, targets: dict[str, Tensor]) -> Any:
        batch = pack_sequences([(encoded.input_ids, encoded.token_type_ids)])
        batch.targets = targets
        return self.model(batch.to(self.device))

    def _encode(self, texts: Sequence[Text]) -> list[Encoded]:
        encoded = join_segments(self.tokenizer, texts, max_length=1 << 30)
        limit = self.config.max_position_embeddings
        for one, text in zip(encoded, texts, strict=True):
            if len(one.input_ids) > limit:
                begin = text if isinstance(text, str) else text[0]
                raise UserError(
                    f"{begin[:40]!r}… is {len(one.input_ids)} tokens long; the position table has {limit} rows"
                )
        return encoded

    def _checked(self, texts: Text | Sequence[Text]) -> list[Text]:
        """The texts as a list. Raises UserError for what is no text, and for pairs where there is one segment type."""
        listed = _listed(texts)
        for number, text in enumerate(listed, 1):
            parts = text if isinstance(text, tuple) and len(text) == 2 else (text,)
            for part in parts:
                if not isinstance(part, str) or not is_unicode(part):
                    raise UserError(f"text {number}: expected a string or a pair of strings, found {text!a}")
            if len(parts) == 2 and self.config.type_vocab_size < 2:
                raise UserError(f"text {number}: a pair, but this model has one segment type only (type_vocab_size 1)")
        return listed

    def _require(self, heads: tuple[type, ...], kind: str, verb: str) -> None:
        if not isinstance(self.model.head, heads):
            raise UserError(
                f"{self.checkpoint.source}: {verb} needs a {kind} head; this model has {type(self.model.head).__name__}"
            )
        report = self.report
        if report and report.newly_initialised:
            raise UserError(f"{self.checkpoint.source}: {verb} needs trained weights: {report.sentence()}")


def _listed(texts: Text | Sequence[Text]) -> list[Text]:
    """One text, or several; a tuple of two strings is one pair."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, tuple) and len(texts) == 2:
        first, second = texts
        if isinstance(first, str) and isinstance(second, str):
            return [(first, second)]
    if not isinstance(texts, Iterable):
        raise UserError(f"expected texts, found {texts!r}")
    return list(texts)


def load(path_or_hub_id: str | Path, device: str = "auto") -> Predictor:
    """Open a model from a directory, a run's directory, or the hub.

    Raises UserError where it is none of them, or its parts do not fit together.
    """
    return Predictor(load_checkpoint(path_or_hub_id), device)
