"""Heads: hidden states and the batch → scores. A head says which tokens it reads, and the encoder finishes only those.

Shapes: T tokens, N sequences, R tokens that a head reads, H hidden, V vocabulary, M masked tokens. Every head is built
with the encoder it reads, for its config and its token table; `ARCHITECTURES` names the Hugging Face class with the
same parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.config import EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.encoder import Encoder
from bothways.model.lm_head import LazyLogits, LMHeadTransform


class Head(nn.Module):
    """What stands on an encoder: `head(hidden [R, H], batch)` with the hidden states of `head.reads(batch)`."""

    def reads(self, batch: PackedBatch) -> Tensor | None:
        """int64 `[R]`: the tokens whose hidden states the head reads; None for all T."""
        return None

    @property
    def reads_first_tokens_only(self) -> bool:
        """Whether it reads each sequence's first token alone, which sees nothing of a text under a causal mask."""
        return False


def first_tokens(batch: PackedBatch) -> Tensor:
    """int64 `[N]`: where each sequence's `[CLS]` is."""
    return batch.cu_seqlens[:-1].long()


class Pooler(nn.Module):
    """tanh(W h + b) of each sequence's first token: `[N, H]` → `[N, H]`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        return torch.tanh(self.dense(first))


@dataclass
class PretrainingScores:
    """mlm: scores `[M, V]` of the rows in `targets["mlm_index"]`. nsp: `[N, 2]` logits, 0 = B follows A, or None."""

    mlm: LazyLogits
    nsp: Tensor | None


class MaskedLMHead(Head):
    """Masked-language-model scores of the rows the batch asks for: never the logits of a token nobody reads."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.lm = LMHeadTransform(encoder.config, encoder.embeddings.token)

    def reads(self, batch: PackedBatch) -> Tensor:
        return batch.targets["mlm_index"]

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        return PretrainingScores(self.lm(hidden), None)


class PretrainingHead(Head):
    """Masked LM and next sentence together, as BERT is pretrained."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.lm = LMHeadTransform(encoder.config, encoder.embeddings.token)
        self.pooler = Pooler(encoder.config)
        self.nsp = nn.Linear(encoder.config.hidden_size, 2)

    def reads(self, batch: PackedBatch) -> Tensor:
        return torch.cat([first_tokens(batch), batch.targets["mlm_index"]])

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        first, masked = hidden.tensor_split([batch.num_sequences])
        return PretrainingScores(self.lm(masked), self.nsp(self.pooler(first)))


class CausalLMHead(Head):
    """Scores of the token that follows: `[T, V]`, or `[R, V]` where the batch says in `targets["lm_index"]` behind
    which tokens they are wanted."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.lm = LMHeadTransform(encoder.config, encoder.embeddings.token)

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return batch.targets.get("lm_index")

    def forward(self, hidden: Tensor, batch: PackedBatch) -> LazyLogits:
        return self.lm(hidden)


class FirstTokenHead(Head):
    """Reads each sequence's first token alone."""

    @property
    def reads_first_tokens_only(self) -> bool:
        return True

    def reads(self, batch: PackedBatch) -> Tensor:
        return first_tokens(batch)


class PoolerHead(FirstTokenHead):
    """A bare encoder's head: the pooled first token `[N, H]`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.pooler = Pooler(encoder.config)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.pooler(hidden)


class SequenceHead(FirstTokenHead):
    """Pooled first token, dropout, one linear layer: `[N, num_labels]` logits."""

    def __init__(self, encoder: Encoder, num_labels: int) -> None:
        super().__init__()
        self.pooler = Pooler(encoder.config)
        self.dropout = _classifier_dropout(encoder.config)
        self.classifier = nn.Linear(encoder.config.hidden_size, num_labels)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(self.pooler(hidden)))


class ChoiceHead(SequenceHead):
    """One number a sequence, `[N]`: how well the choice it ends with goes with what it begins with."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder, 1)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return super().forward(hidden, batch).squeeze(-1)


class TokenHead(Head):
    """Dropout and one linear layer on the tokens in `targets["word_index"]`: `[R, num_labels]` logits."""

    def __init__(self, encoder: Encoder, num_labels: int) -> None:
        super().__init__()
        self.dropout = _classifier_dropout(encoder.config)
        self.classifier = nn.Linear(encoder.config.hidden_size, num_labels)

    def reads(self, batch: PackedBatch) -> Tensor:
        return batch.targets["word_index"]

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(hidden))


class SpanHead(Head):
    """Every token as the start and as the end of an answer: `[T, 2]` logits (Devlin et al. 2018, section 4.2)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.qa_outputs = nn.Linear(encoder.config.hidden_size, 2)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.qa_outputs(hidden)


Pooling = Literal["mean", "cls"]


class EmbeddingHead(Head):
    """A vector a sequence, `[N, H]`: its first token, or the mean over its tokens, `[CLS]` and `[SEP]` included
    (Reimers and Gurevych 2019, section 3); of length one with `normalize`. Has no weights."""

    def __init__(self, encoder: Encoder, pooling: Pooling = "mean", normalize: bool = True) -> None:
        super().__init__()
        self.pooling, self.normalize = pooling, normalize

    @property
    def reads_first_tokens_only(self) -> bool:
        return self.pooling == "cls"

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return first_tokens(batch) if self.pooling == "cls" else None

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


# The Hugging Face class with the same parts. `Task.head` may build any other assembly with a name of its own here.
ARCHITECTURES: dict[type[Head], str] = {
    PretrainingHead: "BertForPreTraining",
    MaskedLMHead: "BertForMaskedLM",
    CausalLMHead: "BertLMHeadModel",
    SequenceHead: "BertForSequenceClassification",
    TokenHead: "BertForTokenClassification",
    SpanHead: "BertForQuestionAnswering",
    ChoiceHead: "BertForMultipleChoice",
    PoolerHead: "BertModel",
    EmbeddingHead: "BertModel",
}
