"""Heads: hidden states and the batch → scores. A head says which tokens it reads, and the encoder finishes only those.

It also says what others need to know of it: what it can do, which Hugging Face class has the same parts, which task
makes it, and what its scores decide. So a new head is a class, and nobody asks which class a head is. Heads of
pretraining are in `pretraining_heads.py`, those of tasks in `task_heads.py`.

Shapes: T tokens, N sequences, R tokens that a head reads, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.attention import attend
from bothways.model.attention_mask import AttentionMask
from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder, PreNormLayer
from bothways.model.lm_head import LazyLogits
from bothways.model.pooling import Pooling

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
    other heads. needs_labels: whether it is built with a number of labels. in_float32: whether its modules are so in
    every precision. pooling, normalize: of a head that gives vectors of texts, the way in which it pools, None where
    that is several, and whether they are of length one.
    """

    kind: ClassVar[HeadKind]
    abilities: ClassVar[frozenset[Ability]] = frozenset()
    architecture: str | None = None
    trained_for: ClassVar[str | None] = None
    needs_labels: ClassVar[bool] = False
    in_float32: ClassVar[bool] = False
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
