"""similar: texts as vectors whose cosine says how alike they are (Reimers and Gurevych 2019).

Trained by pairs with a score, whose cosine is brought near it, or by pairs that belong together, each of which is to be
told from the other pairs of its step (in-batch negatives: Henderson et al. 2017, section 4.4). A text that stands in
several pairs is never told from itself, nor from another text that it belongs to.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, KeepWhole
from bothways.data.prompts import Prompt, prompt_targets
from bothways.data.tables import Row
from bothways.errors import UserError, command, option
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, Model
from bothways.model.pooling import Pooling, TokenPooling
from bothways.model.task_heads import EmbeddingHead, vector_head
from bothways.tasks.base import SoftScores, Task, at_least_float32, options_from_json
from bothways.tasks.metrics import correlations
from bothways.tasks.results import Result
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True, repr=False)
class Similarity(Result):
    """How alike two texts are. cosine: of their vectors, -1 to 1. vectors: float32 `[2, H]`."""

    cosine: float
    vectors: np.ndarray = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The cosine alone."""
        return {"cosine": self.cosine}


@dataclass(frozen=True)
class SimilarOptions:
    """Columns of the table, and how a text becomes a vector.

    score_column: how alike the two are, in any range, more is more alike; rows without that column are pairs that
    belong together. pooling: of a text's tokens; by default the model's own, else the mean. normalize: vectors of
    length one, not as long as they come.
    """

    text_column: str = "text"
    pair_column: str = "pair"
    score_column: str = "score"
    pooling: Pooling | None = None
    normalize: bool = True


BLOCK_TEXTS = 1024  # texts that are compared with all others at once: 4 kB of cosines for each of the others
# What else a model that gives vectors has in its `bothways.json`, and keeps when it is trained.
SENTENCE_STATE = ("prompt", "prompts", "default_prompt_name", "include_prompt", "similarity")
NOT_LEARNT = ("prompts", "default_prompt_name", "similarity")  # of that: what changes nothing in training
COSINE_SCALE = 20.0  # of cosines before the softmax, as sentence-transformers' MultipleNegativesRankingLoss has it


@dataclass(frozen=True)
class SimilarTask(Task):
    """Pairs with a score: the mean squared error between the cosine and the score, scaled to 0 to 1.

    score_range: the lowest and the highest score in training, which become 0 and 1. sentence_state: the values of
    `SENTENCE_STATE`; its prompt stands before every text.
    """

    options: SimilarOptions = SimilarOptions()
    score_range: tuple[float, float] = (0.0, 1.0)
    sentence_state: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    name: ClassVar[str] = "similar"
    Options: ClassVar[type] = SimilarOptions
    example: ClassVar[Mapping[str, Any]] = {"text": "My wifi is slow.", "pair": "The wireless crawls.", "score": 4.6}
    next_command: ClassVar[str] = 'similar {model} "a text of yours" --in {table}'
    keep_whole: ClassVar[KeepWhole] = "row"
    keeps_vectors: ClassVar[bool] = True
    soft_scores: ClassVar[SoftScores | None] = "texts"

    @property
    def prompt(self) -> Prompt:
        """What stands before every text."""
        return Prompt.of_state(self.sentence_state)

    def for_columns(self, columns: Collection[str]) -> SimilarTask:
        """Scored pairs where there is a column of scores, else pairs that belong together."""
        kind = SimilarTask if self.options.score_column in columns else ContrastTask
        return kind(self.options, self.score_range, self.sentence_state)

    @classmethod
    def make(cls, options: Any) -> SimilarTask:
        return cls(options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        read = {self.options.text_column: "a text", self.options.pair_column: "the text it is compared with"}
        return {**read, **({self.options.score_column: "how alike they are"} if labelled else {})}

    def check(self, row: Row) -> None:
        self._texts(row)
        row.number(self.options.score_column)

    def _texts(self, row: Row) -> tuple[str, str]:
        return row.text(self.options.text_column), row.text(self.options.pair_column)

    def kept_together(self, row: Row) -> tuple[str, ...]:
        """Either text: a pair with one of them in training is half known."""
        return self._texts(row)

    def fitted(self, rows: Sequence[Row]) -> Self:
        scores = [row.number(self.options.score_column) for row in rows]
        if min(scores) == max(scores):
            raise UserError(f"{rows[0].source}: every row has the score {scores[0]:g}")
        return replace(self, score_range=(min(scores), max(scores)))

    def to_json(self) -> dict[str, Any]:
        state = {"task": self.name, "options": asdict(self.options), "score_range": list(self.score_range)}
        return {**state, **self.sentence_state}

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in self.to_json().items() if name not in NOT_LEARNT}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> SimilarTask:
        if state.get("task") != cls.name:
            raise UserError(f"this model was not made to compare texts; make one with {command('finetune', 'similar')}")
        low, high = state.get("score_range", (0.0, 1.0))
        kept = {name: state[name] for name in SENTENCE_STATE if name in state}
        return SimilarTask(options_from_json(SimilarOptions, state), (low, high), kept)

    def with_model(self, model: Model, metadata: Mapping[str, Any]) -> Self:
        """A model that gives vectors already keeps its modules, prompts and similarity.

        Raises UserError for another pooling than the one in front of its Dense modules.
        """
        head, asked = vector_head(model), self.options.pooling
        assert head is not None
        if asked not in (None, head.pooling):
            if len(head.projections):
                raise UserError(
                    f"{option('pooling', asked)}: what the model has behind its own pooling "
                    f"({', '.join(head.pool.modes)}) would not fit; leave it out"
                )
            head = EmbeddingHead(TokenPooling((asked,), head.pool.include_prompt), head.normalize)
        model.head = head.normalized(head.normalize and self.options.normalize)
        options = replace(self.options, pooling=head.pooling, normalize=model.head.normalize)
        kept = {name: metadata[name] for name in SENTENCE_STATE if name in metadata}
        return replace(self, options=options, sentence_state=kept)

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        """Two sequences a row: the text, and the text it is compared with."""
        texts = [text for row in rows for text in self._texts(row)]
        encoded = self.prompt.encode(tokenizer, texts, max_length)
        return [replace(sequence, row=sequence.row // 2) for sequence in encoded]

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        """Targets `side`, 0 for the text and 1 for the pair, and `score`, 0 to 1."""
        low, high = self.score_range
        scores = [(row.number(self.options.score_column) - low) / (high - low) for row in rows]
        return [
            _with_targets(text, side=np.array(n % 2), score=np.array(scores[text.row], dtype=np.float32))
            for n, text in enumerate(encoded)
        ]

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """pairs `[rows, 2]`: the two sequences of each row; scores `[rows]`; and what `prompt_targets` has."""
        prompts = prompt_targets(encoded)
        if "side" not in encoded[0].targets:
            return prompts
        sides = np.array([text.targets["side"] for text in encoded])
        order = np.lexsort((sides, np.array([text.row for text in encoded])))
        pairs = order.reshape(-1, 2)
        scores = np.array([encoded[first].targets["score"] for first in pairs[:, 0]], dtype=np.float32)
        return {"pairs": pairs, "scores": scores, **prompts}

    def head(self, encoder: Encoder) -> Head:
        return EmbeddingHead(self.options.pooling or "mean", self.options.normalize)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": len(targets["pairs"])}

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: vectors `[N, H]`."""
        a, b = F.normalize(at_least_float32(scores), dim=-1)[targets["pairs"]].unbind(1)
        return {"loss": ((a * b).sum(-1) - targets["scores"]).square().sum()}

    def soft_targets(self, scores: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The cosine of the two vectors, which may be of another width than the student's."""
        return [np.array([cosine(*scores)], dtype=np.float32)] * 2

    def soft_loss(self, scores: Tensor, targets: Mapping[str, Tensor], temperature: float) -> Tensor:
        """The squared difference from the teacher's cosine, at any temperature."""
        a, b = F.normalize(at_least_float32(scores), dim=-1)[targets["pairs"]].unbind(1)
        return ((a * b).sum(-1) - targets["soft"][targets["pairs"][:, 0]]).square().sum()

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Similarity:
        return Similarity(cosine(*scores), np.array(scores))

    def metrics(self, predictions: Sequence[Similarity], rows: Sequence[Row]) -> dict[str, Any]:
        """spearman and pearson of the cosines with the scores."""
        gold = [row.number(self.options.score_column) for row in rows]
        return correlations(gold, [similarity.cosine for similarity in predictions])

    def describe(self, prediction: Similarity, row: Row, labelled: bool) -> dict[str, Any]:
        first, second = self._texts(row)
        described: dict[str, Any] = {"text": first, "pair": second, "predicted": prediction.cosine}
        if labelled:
            low, high = self.score_range
            gold = row.number(self.options.score_column)
            scaled = (gold - low) / (high - low or 1)
            described |= {"truth": gold, "truth_0_to_1": scaled, "error": abs(scaled - prediction.cosine)}
        return described


@dataclass(frozen=True)
class ContrastTask(SimilarTask):
    """Pairs that belong together: cross-entropy of each text's own pair among all pairs of the step, but those which
    `_not_negatives` leaves out."""

    example: ClassVar[Mapping[str, Any]] = {"text": "My wifi is slow.", "pair": "The wireless crawls."}

    keep_whole: ClassVar[KeepWhole] = "step"

    def columns(self, labelled: bool = True) -> dict[str, str]:
        return super().columns(labelled=False)

    def check(self, row: Row) -> None:
        self._texts(row)

    def fitted(self, rows: Sequence[Row]) -> Self:
        return self

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        return [_with_targets(text, side=np.array(n % 2), score=np.array(1.0)) for n, text in enumerate(encoded)]

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """Besides `pairs` and `scores`: texts `[N]`, a number for each sequence, the same where the tokens are."""
        targets = super().collate(encoded)
        if "pairs" not in targets:
            return targets
        return {**targets, "texts": _numbered([sequence.input_ids.tobytes() for sequence in encoded])}

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), len(targets["pairs"]))

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        a, b = F.normalize(at_least_float32(scores), dim=-1)[targets["pairs"]].unbind(1)
        cosines = COSINE_SCALE * a @ b.T
        own = torch.arange(len(a), device=cosines.device)
        texts, paired = targets["texts"][targets["pairs"]].unbind(1)
        cosines = cosines.masked_fill(_not_negatives(own, texts, paired), -torch.inf)
        return {
            "loss": F.cross_entropy(cosines, own, reduction="sum"),
            "accuracy": (cosines.detach().argmax(-1) == own).sum(),
        }

    def metrics(self, predictions: Sequence[Similarity], rows: Sequence[Row]) -> dict[str, Any]:
        """accuracy: the share of texts that are more like their own pair than like any other row's. mrr: the mean over
        texts of 1 / rank of their own pair. Other rows of the same text, or with the same pair, are not compared with.
        """
        vectors = np.array([similarity.vectors for similarity in predictions])
        a, b = F.normalize(torch.from_numpy(vectors), dim=-1).unbind(1)
        numbers = _numbered([text for row in rows for text in self._texts(row)])
        texts, paired = torch.from_numpy(numbers).view(-1, 2).unbind(1)
        ranks = []
        for number, block in enumerate(a.split(BLOCK_TEXTS)):
            cosines = block @ b.T
            own = cosines.diagonal(number * BLOCK_TEXTS)[:, None]  # of the same product, so that rounding ranks nothing
            places = torch.arange(len(block)) + number * BLOCK_TEXTS
            cosines = cosines.masked_fill(_not_negatives(places, texts, paired), -torch.inf)
            ranks.append((cosines > own).sum(1) + 1)
        rank = torch.cat(ranks).double()
        return {"accuracy": float((rank == 1).double().mean()), "mrr": float((1 / rank).mean())}

    def describe(self, prediction: Similarity, row: Row, labelled: bool) -> dict[str, Any]:
        return {
            **super().describe(prediction, row, labelled=False),
            **({"error": 1 - prediction.cosine} if labelled else {}),
        }


def _with_targets(text: Encoded, **targets: np.ndarray) -> Encoded:
    return replace(text, targets={**text.targets, **targets})


def _numbered(values: Sequence[Hashable]) -> np.ndarray:
    """int64 `[N]`: a number for each value, equal ones with the same."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _not_negatives(places: Tensor, texts: Tensor, paired: Tensor) -> Tensor:
    """Boolean `[P, rows]`: the other rows whose pair a row's text is not to be told from.

    Their pair is the row's own pair, or the row's text itself, or belongs to the same text. places: `[P]`, of the rows
    that are compared. texts, paired: `[rows]`, a number for each row's two texts.
    """
    text, own = texts[places, None], paired[places, None]
    equal = (paired == own) | (paired == text) | (texts == text)
    return equal & (places[:, None] != torch.arange(len(texts), device=texts.device))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two vectors, -1 to 1; 0 where one of them is zero."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0
