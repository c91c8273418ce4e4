"""Heads: hidden states and the batch → scores. A head says which tokens it reads, and the encoder finishes only those.

It also says what others need to know of it: what it can do, which Hugging Face class has the same parts, which task
makes it, and what its scores decide. So a new head is a class here, and nobody asks which class a head is.

Shapes: T tokens, N sequences, R tokens that a head reads, H hidden, V vocabulary, M masked tokens, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.attention import attend
from bothways.model.attention_mask import AttentionMask
from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder, PreNormLayer
from bothways.model.lm_head import LazyLogits, LMHeadTransform

# What a head can do, in the words of error messages; `language-model` scores every piece of the vocabulary.
Ability = Literal[
    "language-model",
    "masked-LM",
    "causal-LM",
    "next-sentence",
    "replaced-token",
    "sequence",
    "choice",
    "token",
    "span",
    "embedding",
]
HeadKind = Literal[
    "pretraining",
    "masked-LM",
    "causal-LM",
    "discriminator",
    "sequence",
    "choice",
    "token",
    "span",
    "embedding",
    "encoder",
]
Pooling = Literal["mean", "cls"]
Reading = Literal["first", "last", "mean"]  # of a sequence's tokens


@dataclass(frozen=True)
class Decision:
    """What a head's scores of one text decide: in words, and the number behind it as a function of such scores."""

    of: str
    score: Callable[[Any], Tensor]


class Head(nn.Module):
    """What stands on an encoder: `head(hidden [R, H], batch)` with the hidden states of `head.reads(batch)`.

    A head is put together of modules, which `families/` make as each family has them.

    kind: what `families` knows it by. abilities: what its scores are good for. architecture: the Hugging Face class
    with the same parts; None where there is none. trained_for: the task whose models of this architecture are; None for
    other heads. needs_labels: whether it is built with a number of labels. pooling, normalize: how a head that gives
    vectors of texts makes them; None for other heads.
    """

    kind: ClassVar[HeadKind]
    abilities: ClassVar[frozenset[Ability]] = frozenset()
    architecture: str | None = None
    trained_for: ClassVar[str | None] = None
    needs_labels: ClassVar[bool] = False
    pooling: Pooling | None = None
    normalize: bool = False

    def reads(self, batch: PackedBatch) -> Tensor | None:
        """int64 `[R]`: the tokens whose hidden states the head reads, in the order in which it reads them; a token that
        is named twice is read twice. None for all T."""
        return None

    def batch_to_read(self, batch: PackedBatch) -> PackedBatch:
        """What the encoder is to read in place of a batch: the batch itself, but for a head that alters it first."""
        return batch

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        """The attention that the encoder is to compute, an `Attend`: a head may keep what passes there."""
        return attend(q, k, v, batch, mask, dropout)

    def helpers(self) -> Iterable[Model]:
        """Models that the head asks besides the encoder that it stands on."""
        return ()

    def saved_models(self, model: Model) -> dict[str, Model]:
        """What a finished pretraining writes, by the name of its directory. model: the one with this head."""
        return {"model": model}

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


def last_tokens(batch: PackedBatch) -> Tensor:
    """int64 `[N]`: where each sequence's last token is."""
    return batch.cu_seqlens[1:].long() - 1


class Pooler(nn.Module):
    """norm(activation(W h + b)) of each sequence's state: `[N, H]` → `[N, H]`; BERT's has tanh and no norm."""

    def __init__(
        self,
        dense: nn.Linear,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        *,
        dropout: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        """dropout: in front of the product."""
        super().__init__()
        self.dense, self.activation, self.dropout, self.norm = dense, activation, dropout, norm

    def forward(self, state: Tensor) -> Tensor:
        dense = self.dense(state if self.dropout is None else self.dropout(state))
        pooled = self.activation(dense)
        return pooled if self.norm is None else self.norm(pooled)


@dataclass
class PretrainingScores:
    """mlm: scores `[M, V]` of the tokens in `targets["mlm_index"]`. nsp: `[N, 2]` logits, 0 = B follows A, or None."""

    mlm: LazyLogits
    nsp: Tensor | None


class LMHead(Head):
    """Scores over the vocabulary, by a decoder that is tied to the encoder's token table."""

    def __init__(self, lm: LMHeadTransform) -> None:
        super().__init__()
        self.lm = lm

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

    kind: ClassVar[HeadKind] = "masked-LM"
    abilities = frozenset[Ability]({"language-model", "masked-LM"})

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

    kind: ClassVar[HeadKind] = "pretraining"
    abilities = frozenset[Ability]({"language-model", "masked-LM", "next-sentence"})

    def __init__(self, lm: LMHeadTransform, pooler: Pooler, nsp: nn.Linear) -> None:
        super().__init__(lm)
        self.pooler, self.nsp = pooler, nsp

    def reads(self, batch: PackedBatch) -> Tensor:
        return torch.cat([first_tokens(batch), batch.targets["mlm_index"]])

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        first, masked = hidden.tensor_split([batch.num_sequences])
        return PretrainingScores(self.lm(masked), self.nsp(self.pooler(first)))


class CausalLMHead(LMHead):
    """Scores of the token that follows: `[T, V]`, or `[R, V]` where the batch says in `targets["lm_index"]` behind
    which tokens they are wanted."""

    kind = "causal-LM"
    abilities = frozenset[Ability]({"language-model", "causal-LM"})

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return batch.targets.get("lm_index")

    def forward(self, hidden: Tensor, batch: PackedBatch) -> LazyLogits:
        return self.lm(hidden)

    def vocabulary_scores(self, scores: LazyLogits) -> LazyLogits:
        return scores

    def num_scored(self, batch: PackedBatch) -> int:
        read = self.reads(batch)
        return batch.num_tokens if read is None else len(read)


class DiscriminatorHead(Head):
    """Whether each token is another than the text's own: logits `[T]` (Clark et al. 2020, section 2)."""

    kind = "discriminator"
    abilities = frozenset[Ability]({"replaced-token"})

    def __init__(self, dense: nn.Linear, activation: Callable[[Tensor], Tensor], prediction: nn.Linear) -> None:
        super().__init__()
        self.dense, self.activation, self.prediction = dense, activation, prediction

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.prediction(self.activation(self.dense(hidden))).squeeze(-1)


class PooledHead(Head):
    """Reads one state of each sequence: its first token's, its last one's, or the mean over its tokens."""

    def __init__(self, pooler: nn.Module, reading: Reading = "first") -> None:
        super().__init__()
        self.pooler, self.reading = pooler, reading

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return {"first": first_tokens, "last": last_tokens, "mean": lambda batch: None}[self.reading](batch)

    @property
    def reads_first_tokens_only(self) -> bool:
        return self.reading == "first"

    def pooled(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """`[N, H]`."""
        pooled: Tensor = self.pooler(sequence_means(hidden, batch) if self.reading == "mean" else hidden)
        return pooled


class EncoderHead(PooledHead):
    """A bare encoder's head: the pooled first token `[N, H]`, or the token itself where a family pools nothing."""

    kind = "encoder"

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.pooled(hidden, batch)


class SequenceHead(PooledHead):
    """Pooled state, dropout, one linear layer: `[N, C]` logits."""

    kind: ClassVar[HeadKind] = "sequence"
    abilities = frozenset[Ability]({"sequence"})
    trained_for = "classify"
    needs_labels = True

    def __init__(
        self, pooler: nn.Module, dropout: nn.Module, classifier: nn.Linear, reading: Reading = "first"
    ) -> None:
        super().__init__(pooler, reading)
        self.dropout, self.classifier = dropout, classifier

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(self.pooled(hidden, batch)))

    def decision(self, scores: Tensor, name: Callable[[int], str]) -> Decision:
        """The label with the highest score; the score itself where there is but one."""
        best = int(scores[0].argmax()) if scores.dim() > 1 else 0
        return Decision(name(best) or "the score", lambda scores: scores.reshape(-1)[best])


class ChoiceHead(SequenceHead):
    """One number a sequence, `[N]`: how well the choice it ends with goes with what it begins with."""

    kind: ClassVar[HeadKind] = "choice"
    abilities = frozenset[Ability]({"choice"})
    trained_for = "choose"
    needs_labels = False

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return super().forward(hidden, batch).squeeze(-1)


class TokenHead(Head):
    """Dropout and one linear layer on the tokens in `targets["word_index"]`: `[R, C]` logits."""

    kind = "token"
    abilities = frozenset[Ability]({"token"})
    trained_for = "tag"
    needs_labels = True

    def __init__(self, dropout: nn.Module, classifier: nn.Linear, transform: nn.Module | None = None) -> None:
        """transform: of the hidden states, in front of the dropout."""
        super().__init__()
        self.transform, self.dropout, self.classifier = transform, dropout, classifier

    def reads(self, batch: PackedBatch) -> Tensor:
        return batch.targets["word_index"]

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(hidden if self.transform is None else self.transform(hidden)))

    def decision(self, scores: Tensor, name: Callable[[int], str]) -> Decision:
        """The labels of all tokens inside an entity (not `O`); of all tokens where there is none."""
        best = scores.argmax(-1)
        inside = [token for token, label in enumerate(best.tolist()) if name(label) not in ("", "O")]
        chosen = torch.tensor(inside or list(range(len(best))))
        return Decision("the labels", lambda scores: scores[chosen, best[chosen]].sum())


class SpanHead(Head):
    """Every token as the start and as the end of an answer: `[T, 2]` logits (Devlin et al. 2018, section 4.2)."""

    kind = "span"
    abilities = frozenset[Ability]({"span"})
    trained_for = "answer"

    def __init__(self, qa_outputs: nn.Linear, transform: nn.Module | None = None) -> None:
        """transform: of the hidden states."""
        super().__init__()
        self.transform, self.qa_outputs = transform, qa_outputs

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.qa_outputs(hidden if self.transform is None else self.transform(hidden))


class EmbeddingHead(Head):
    """A vector a sequence, `[N, H]`: its first token, or the mean over its tokens, `[CLS]` and `[SEP]` included
    (Reimers and Gurevych 2019, section 3); of length one with `normalize`. Has no weights."""

    kind = "embedding"
    abilities = frozenset[Ability]({"embedding"})

    def __init__(self, pooling: Pooling = "mean", normalize: bool = True) -> None:
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


HEAD_KINDS: dict[HeadKind, type[Head]] = {
    head.kind: head
    for head in (
        PretrainingHead,
        MaskedLMHead,
        CausalLMHead,
        DiscriminatorHead,
        SequenceHead,
        ChoiceHead,
        TokenHead,
        SpanHead,
        EmbeddingHead,
        EncoderHead,
    )
}


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
        batch = self.head.batch_to_read(batch)
        return self.head(self.encoder(batch, self.head.reads(batch), self.head.attend), batch)

    def with_head(self, head: Head) -> Model:
        """The same encoder under another head, ready to predict."""
        return type(self)(self.encoder, head).eval()


def initialise(model: Model, initializer_range: float, generator: torch.Generator) -> None:
    """BERT's initialisation: normal with mean 0 and deviation `initializer_range`; biases 0, layer norms 1 and 0. A
    fixed table of positions stays as it is. In layers with the norm in front, the two products whose results are added
    to the residual are smaller by √(2 × layers), so that it does not grow with depth (Radford et al. 2019, section
    2.3)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding) and module.weight.requires_grad:
            with torch.no_grad():
                module.weight.normal_(0.0, initializer_range, generator=generator)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for layer in model.encoder.layers:
        if isinstance(layer, PreNormLayer):
            for linear in (layer.attention.output, layer.output):
                linear.weight.data /= (2 * len(model.encoder.order)) ** 0.5


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters, which are all on one; compiled layers, which have none, are on the CPU."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
