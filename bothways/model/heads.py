"""Heads: hidden states and the batch → scores. A head says which tokens it reads, and the encoder finishes only those.

It also says what others need to know of it: what it can do, which Hugging Face class has the same parts, which task
makes it, and what its scores decide. So a new head is a class here, and nobody asks which class a head is.

Shapes: T tokens, N sequences, R tokens that a head reads, H hidden, V vocabulary, M masked tokens, C labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.assembly import activation_function
from bothways.model.config import EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.encoder import Encoder
from bothways.model.lm_head import LazyLogits, LMHeadTransform

# What a head can do, in the words of error messages; `language-model` scores every piece of the vocabulary.
Ability = Literal[
    "language-model", "masked-LM", "causal-LM", "next-sentence", "sequence", "choice", "token", "span", "embedding"
]
Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class Decision:
    """What a head's scores of one text decide: in words, and the number behind it as a function of such scores."""

    of: str
    score: Callable[[Any], Tensor]


class Head(nn.Module):
    """What stands on an encoder: `head(hidden [R, H], batch)` with the hidden states of `head.reads(batch)`.

    A head is built with the encoder that it reads: from the sizes in its config, and its token table where it has one.

    abilities: what its scores are good for. architecture: the Hugging Face class with the same parts; None where there
    is none. trained_for: the task whose models of this architecture are; None for other heads. needs_labels: whether it
    is built with a number of labels. parts: of its modules those that tell its files from other heads', by name.
    pooling, normalize: how a head that gives vectors of texts makes them; None for other heads.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset()
    architecture: ClassVar[str | None] = None
    trained_for: ClassVar[str | None] = None
    needs_labels: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]] = ()
    pooling: Pooling | None = None
    normalize: bool = False

    def reads(self, batch: PackedBatch) -> Tensor | None:
        """int64 `[R]`: the tokens whose hidden states the head reads, in the order in which it reads them; a token that
        is named twice is read twice. None for all T."""
        return None

    @property
    def reads_first_tokens_only(self) -> bool:
        """Whether it reads each sequence's first token alone, which sees nothing of a text under a causal mask."""
        return False

    def vocabulary_scores(self, scores: Any) -> LazyLogits | None:
        """Of its scores those over the vocabulary; None for heads that have none."""
        return None

    def num_scored(self, batch: PackedBatch) -> int:
        """How many tokens of a batch get scores over the vocabulary."""
        return 0

    def decision(self, scores: Any, name: Callable[[int], str]) -> Decision | None:
        """What the scores of one text decide; None for heads that decide nothing by themselves.

        name: what a column of the scores is called, a label or a piece; empty where it has no name.
        """
        return None


def first_tokens(batch: PackedBatch) -> Tensor:
    """int64 `[N]`: where each sequence's `[CLS]` is."""
    return batch.cu_seqlens[:-1].long()


class Pooler(nn.Module):
    """tanh(W h + b) of each sequence's first token: `[N, H]` → `[N, H]`."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        return torch.tanh(self.dense(first))


@dataclass
class PretrainingScores:
    """mlm: scores `[M, V]` of the tokens in `targets["mlm_index"]`. nsp: `[N, 2]` logits, 0 = B follows A, or None."""

    mlm: LazyLogits
    nsp: Tensor | None


class LMHead(Head):
    """Scores over the vocabulary, by a decoder that is tied to the encoder's token table."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        config = encoder.config
        activation = activation_function(config.hidden_act)
        self.lm = LMHeadTransform(config.hidden_size, activation, config.layer_norm_eps, encoder.embeddings.token)

    def decision(self, scores: Any, name: Callable[[int], str]) -> Decision | None:
        """The likeliest piece at the first token that is scored."""

        def logits(scores: Any) -> Tensor:
            found = self.vocabulary_scores(scores)
            assert found is not None
            return found.logits[0]

        piece = int(logits(scores).argmax())
        return Decision(name(piece), lambda scores: logits(scores)[piece])


class MaskedLMHead(LMHead):
    """Masked-language-model scores of the tokens in `targets["mlm_index"]`: never the logits of a token nobody
    reads."""

    abilities = frozenset[Ability]({"language-model", "masked-LM"})
    architecture = "BertForMaskedLM"
    parts = ("lm.dense",)

    def reads(self, batch: PackedBatch) -> Tensor:
        return batch.targets["mlm_index"]

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        return PretrainingScores(self.lm(hidden), None)

    def vocabulary_scores(self, scores: PretrainingScores) -> LazyLogits:
        return scores.mlm

    def num_scored(self, batch: PackedBatch) -> int:
        return len(batch.targets["mlm_index"])


class PretrainingHead(MaskedLMHead):
    """Masked LM and next sentence together, as BERT is pretrained."""

    abilities = frozenset[Ability]({"language-model", "masked-LM", "next-sentence"})
    architecture = "BertForPreTraining"
    parts = ("nsp",)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.pooler = Pooler(encoder.config.hidden_size)
        self.nsp = nn.Linear(encoder.config.hidden_size, 2)

    def reads(self, batch: PackedBatch) -> Tensor:
        return torch.cat([first_tokens(batch), batch.targets["mlm_index"]])

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        first, masked = hidden.tensor_split([batch.num_sequences])
        return PretrainingScores(self.lm(masked), self.nsp(self.pooler(first)))


class CausalLMHead(LMHead):
    """Scores of the token that follows: `[T, V]`, or `[R, V]` where the batch says in `targets["lm_index"]` behind
    which tokens they are wanted."""

    abilities = frozenset[Ability]({"language-model", "causal-LM"})
    architecture = "BertLMHeadModel"

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return batch.targets.get("lm_index")

    def forward(self, hidden: Tensor, batch: PackedBatch) -> LazyLogits:
        return self.lm(hidden)

    def vocabulary_scores(self, scores: LazyLogits) -> LazyLogits:
        return scores

    def num_scored(self, batch: PackedBatch) -> int:
        read = self.reads(batch)
        return batch.num_tokens if read is None else len(read)


class FirstTokenHead(Head):
    """Reads each sequence's first token alone."""

    def reads(self, batch: PackedBatch) -> Tensor:
        return first_tokens(batch)

    @property
    def reads_first_tokens_only(self) -> bool:
        return True


class PoolerHead(FirstTokenHead):
    """A bare encoder's head: the pooled first token `[N, H]`."""

    architecture = "BertModel"

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.pooler = Pooler(encoder.config.hidden_size)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.pooler(hidden)


class SequenceHead(FirstTokenHead):
    """Pooled first token, dropout, one linear layer: `[N, C]` logits."""

    abilities = frozenset[Ability]({"sequence"})
    architecture = "BertForSequenceClassification"
    trained_for = "classify"
    needs_labels = True
    parts = ("pooler.dense", "classifier")

    def __init__(self, encoder: Encoder, num_labels: int) -> None:
        super().__init__()
        self.pooler = Pooler(encoder.config.hidden_size)
        self.dropout = _classifier_dropout(encoder.config)
        self.classifier = nn.Linear(encoder.config.hidden_size, num_labels)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(self.pooler(hidden)))

    def decision(self, scores: Tensor, name: Callable[[int], str]) -> Decision:
        """The label with the highest score; the score itself where there is but one."""
        best = int(scores[0].argmax()) if scores.dim() > 1 else 0
        return Decision(name(best) or "the score", lambda scores: scores.reshape(-1)[best])


class ChoiceHead(SequenceHead):
    """One number a sequence, `[N]`: how well the choice it ends with goes with what it begins with."""

    abilities = frozenset[Ability]({"choice"})
    architecture = "BertForMultipleChoice"
    trained_for = "choose"
    needs_labels = False

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder, 1)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return super().forward(hidden, batch).squeeze(-1)


class TokenHead(Head):
    """Dropout and one linear layer on the tokens in `targets["word_index"]`: `[R, C]` logits."""

    abilities = frozenset[Ability]({"token"})
    architecture = "BertForTokenClassification"
    trained_for = "tag"
    needs_labels = True
    parts = ("classifier",)

    def __init__(self, encoder: Encoder, num_labels: int) -> None:
        super().__init__()
        self.dropout = _classifier_dropout(encoder.config)
        self.classifier = nn.Linear(encoder.config.hidden_size, num_labels)

    def reads(self, batch: PackedBatch) -> Tensor:
        return batch.targets["word_index"]

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(hidden))

    def decision(self, scores: Tensor, name: Callable[[int], str]) -> Decision:
        """The labels of all tokens inside an entity (not `O`); of all tokens where there is none."""
        best = scores.argmax(-1)
        inside = [token for token, label in enumerate(best.tolist()) if name(label) not in ("", "O")]
        chosen = torch.tensor(inside or list(range(len(best))))
        return Decision("the labels", lambda scores: scores[chosen, best[chosen]].sum())


class SpanHead(Head):
    """Every token as the start and as the end of an answer: `[T, 2]` logits (Devlin et al. 2018, section 4.2)."""

    abilities = frozenset[Ability]({"span"})
    architecture = "BertForQuestionAnswering"
    trained_for = "answer"
    parts = ("qa_outputs",)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.qa_outputs = nn.Linear(encoder.config.hidden_size, 2)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.qa_outputs(hidden)


class EmbeddingHead(Head):
    """A vector a sequence, `[N, H]`: its first token, or the mean over its tokens, `[CLS]` and `[SEP]` included
    (Reimers and Gurevych 2019, section 3); of length one with `normalize`. Has no weights."""

    abilities = frozenset[Ability]({"embedding"})
    architecture = "BertModel"

    def __init__(self, encoder: Encoder, pooling: Pooling = "mean", normalize: bool = True) -> None:
        super().__init__()
        self.pooling, self.normalize = pooling, normalize

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return first_tokens(batch) if self.pooling == "cls" else None

    @property
    def reads_first_tokens_only(self) -> bool:
        return self.pooling == "cls"

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        vectors = hidden.float() if self.pooling == "cls" else sequence_means(hidden.float(), batch)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors


def sequence_means(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """The mean of each sequence's hidden states: `[T, H]` → `[N, H]`."""
    lengths = batch.lengths.to(hidden.device)
    number = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
    sums = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, number, hidden)
    return sums / lengths[:, None]


def _classifier_dropout(config: EncoderConfig) -> Dropout:
    dropout = config.classifier_dropout
    return Dropout(config.hidden_dropout_prob if dropout is None else dropout)


# The heads that a file's weights are told by where its config names no class: the first whose `parts` are all there.
# (`PoolerHead` has none, and so is told of what is left.) An `EmbeddingHead` is told by `modules.json`.
HEADS: tuple[type[Head], ...] = (
    PretrainingHead,
    MaskedLMHead,
    SpanHead,
    SequenceHead,
    TokenHead,
    PoolerHead,
    CausalLMHead,
    ChoiceHead,
)


class Model(nn.Module):
    """An encoder and a head: packed batch → the head's scores."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @property
    def config(self) -> EncoderConfig:
        return self.encoder.config

    def forward(self, batch: PackedBatch):  # type: ignore[no-untyped-def]
        return self.head(self.encoder(batch, self.head.reads(batch)), batch)

    def with_head(self, head: Head) -> Model:
        """The same encoder under another head, ready to predict."""
        return type(self)(self.encoder, head).eval()


def initialise(model: nn.Module, initializer_range: float, generator: torch.Generator) -> None:
    """BERT's initialisation: normal with mean 0 and deviation `initializer_range`; biases 0, layer norms 1 and 0. A
    fixed table of positions stays as it is."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding) and module.weight.requires_grad:
            with torch.no_grad():
                module.weight.normal_(0.0, initializer_range, generator=generator)
                if isinstance(module, nn.Linear):
                    module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters, which are all on one; compiled layers, which have none, are on the CPU."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
