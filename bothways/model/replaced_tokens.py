"""Replaced-token detection (ELECTRA, Clark et al. 2020, section 2): a small generator fills masks, and the model that
is kept, the discriminator, tells at every token whether it is the text's own.

Shapes: T tokens, M masked tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.encoder import Encoder
from bothways.model.heads import Ability, Model
from bothways.model.lm_head import LazyLogits
from bothways.model.pretraining_heads import DiscriminatorHead, LMHead


@dataclass(frozen=True)
class ReplacedTokenScores:
    """mlm: the generator's scores `[M, V]` of the tokens in `targets["mlm_index"]`. replaced: logits `[T]`, above 0
    where the discriminator takes a token for a replaced one. input_ids: what it read, int64 `[T]`."""

    mlm: LazyLogits
    replaced: Tensor
    input_ids: Tensor


class ReplacedTokenHead(DiscriminatorHead):
    """The discriminator's head with the generator beside it, for pretraining. The two share their token, type and
    position tables (Clark et al. 2020, section 3.2).

    A masked token is replaced by one that is drawn from the generator's distribution; one that happens to be the text's
    own counts as the text's own. No gradient flows through the drawing.
    """

    abilities = frozenset[Ability]({"language-model", "replaced-token"})

    def __init__(self, discriminator: DiscriminatorHead, generator: Model) -> None:
        super().__init__(discriminator.dense, discriminator.activation, discriminator.prediction)
        self.generator = generator
        self._generated: LazyLogits | None = None

    def helpers(self) -> Iterable[Model]:
        return (self.generator,)

    def saved_models(self, model: Model) -> dict[str, Model]:
        plain = DiscriminatorHead(self.dense, self.activation, self.prediction)
        plain.architecture = self.architecture
        return {"model": model.with_head(plain), "generator": self.generator}

    def batch_to_read(self, batch: PackedBatch) -> PackedBatch:
        """The batch with each mask replaced by what the generator draws for it."""
        self._generated = self.generator(batch).mlm
        generator = torch.Generator(batch.input_ids.device).manual_seed(_key(batch))
        drawn = self._generated.sample(generator)
        return replace(batch, input_ids=batch.input_ids.index_copy(0, batch.targets["mlm_index"], drawn))

    def forward(self, hidden: Tensor, batch: PackedBatch) -> ReplacedTokenScores:  # type: ignore[override]
        """batch: of `batch_to_read`."""
        assert self._generated is not None
        generated, self._generated = self._generated, None
        return ReplacedTokenScores(generated, super().forward(hidden, batch), batch.input_ids)

    def vocabulary_scores(self, scores: ReplacedTokenScores) -> LazyLogits:
        return scores.mlm

    def num_scored(self, batch: PackedBatch) -> int:
        return 0  # by its own layers: the generator counts what it scores


def share_tables(generator: Model, discriminator: Encoder) -> None:
    """Let the generator read the discriminator's token, type and position tables, as wide as its own.

    The generator's decoder is tied to its token table, and so to the discriminator's from then on.
    """
    ours, theirs = generator.encoder.embeddings, discriminator.embeddings
    ours.token, ours.token_type, ours.position = theirs.token, theirs.token_type, theirs.position
    cast("LMHead", generator.head).lm.decoder.weight = theirs.token.weight


def _key(batch: PackedBatch) -> int:
    """A number that follows from what is read, so that what is drawn does as well, on any number of processes and after
    a resume."""
    return zlib.crc32(batch.input_ids.cpu().numpy().tobytes())
