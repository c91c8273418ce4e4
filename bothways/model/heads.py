"""Heads: hidden states `[T, H]` and the batch → scores. A head reads only the rows it needs.

Shapes: T tokens, N sequences, H hidden, V vocabulary, M masked rows. Every head is built with the
encoder it reads, for its config and its token table; `ARCHITECTURES` names the Hugging Face class with the same parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bothways.data.packing import PackedBatch
from bothways.model.config import BertConfig
from bothways.model.encoder import Encoder, activation


class Pooler(nn.Module):
    """tanh(W h + b) of each sequence's first token: `[T, H]` → `[N, H]`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        first = batch.cu_seqlens[:-1].long()
        return torch.tanh(self.dense(hidden[first]))


class MaskedLM(nn.Module):
    """Transform, layer norm, and a decoder tied to the token embeddings: rows `[M, H]` → logits `[M, V]`."""

    def __init__(self, config: BertConfig, token_embedding: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.decoder.weight = token_embedding.weight

    def forward(self, rows: Tensor) -> Tensor:
        return self.decoder(self.norm(self.activation(self.dense(rows))))


@dataclass
class PretrainingScores:
    """mlm: `[M, V]` logits of the rows in `targets["mlm_rows"]`. nsp: `[N, 2]` logits, 0 = B follows A, or None."""

    mlm: Tensor
    nsp: Tensor | None


class MaskedLMHead(nn.Module):
    """Masked-language-model scores of the rows the batch asks for: never the logits of a token nobody reads."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.mlm = MaskedLM(encoder.config, encoder.embeddings.token)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        return PretrainingScores(self.mlm(hidden[batch.targets["mlm_rows"]]), None)


class PretrainingHead(nn.Module):
    """Masked LM and next sentence together, as BERT is pretrained."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.mlm = MaskedLM(encoder.config, encoder.embeddings.token)
        self.pooler = Pooler(encoder.config)
        self.nsp = nn.Linear(encoder.config.hidden_size, 2)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        return PretrainingScores(self.mlm(hidden[batch.targets["mlm_rows"]]), self.nsp(self.pooler(hidden, batch)))


class PoolerHead(nn.Module):
    """A bare encoder's head: the pooled first token `[N, H]`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.pooler = Pooler(encoder.config)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.pooler(hidden, batch)


class SequenceHead(nn.Module):
    """Pooled first token, dropout, one linear layer: `[N, num_labels]` logits."""

    def __init__(self, encoder: Encoder, num_labels: int) -> None:
        super().__init__()
        config = encoder.config
        dropout = config.classifier_dropout
        self.pooler = Pooler(encoder.config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        self.classifier = nn.Linear(config.hidden_size, num_labels)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(self.pooler(hidden, batch)))


class Bert(nn.Module):
    """An encoder and a head: packed batch → the head's scores."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @property
    def config(self) -> BertConfig:
        return self.encoder.config

    def forward(self, batch: PackedBatch):  # type: ignore[no-untyped-def]
        return self.head(self.encoder(batch), batch)


def initialise(model: nn.Module, initializer_range: float, generator: torch.Generator) -> None:
    """BERT's initialisation: normal with mean 0 and deviation `initializer_range`; biases 0, layer norms 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            with torch.no_grad():
                module.weight.normal_(0.0, initializer_range, generator=generator)
                if isinstance(module, nn.Linear):
                    module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()


# The Hugging Face class with the same parts. `Task.head` may build any other assembly with a name of its own here.
ARCHITECTURES: dict[type[nn.Module], str] = {
    PretrainingHead: "BertForPreTraining",
    MaskedLMHead: "BertForMaskedLM",
    SequenceHead: "BertForSequenceClassification",
    PoolerHead: "BertModel",
}
