"""Masked language modelling: which tokens are to be predicted, what stands in their place, and the batches of it.

Devlin et al. 2018, "BERT", section 3.1 (task 1) and appendix A.1.

Shapes: T tokens of a batch, N examples, M masked tokens, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from bothways.batch import PackedBatch, pack
from bothways.counter_random import uniforms
from bothways.data.sentence_pairs import PAIR_SPECIAL_TOKENS, SINGLE_SPECIAL_TOKENS, Pairing
from bothways.data.spans import SpanOptions, Spans, ranges
from bothways.data.store import Chunk
from bothways.errors import UserError, option
from bothways.text.special_tokens import ABSENT
from bothways.text.tokenizer import Tokenizer

# Streams of `counter_random.uniforms`: is the token chosen, what stands in its place, which token if a random one.
CHOICE_STREAM, PLACE_STREAM, REPLACEMENT_STREAM = 0, 1, 2


@dataclass(frozen=True)
class Masking:
    """How many tokens are to be predicted, and what stands in their place.

    rate: the share of tokens to predict, above 0 and below 1. mask_share, random_share: the shares of these that read
    `[MASK]` and a random token; the rest, by default a tenth, keep their token. whole_word: choose words, not pieces.
    repeats: choose all places of a token in a sequence together, so that what is hidden can be read nowhere.
    end_rate: the rate moves from `rate` to this one, linearly over `steps` (Ankner et al. 2023, "Dynamic masking rate
    schedules for MLM pretraining": 30 % falling to 15 %); None: it stays.
    Raises UserError for shares out of range.
    """

    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_word: bool = False
    end_rate: float | None = None
    steps: int = 0
    repeats: bool = False

    def __post_init__(self) -> None:
        for name, rate in (("mask_rate", self.rate), ("mask_rate_end", self.end_rate)):
            if rate is not None and not 0 < rate < 1:
                raise UserError(f"{option(name, rate)}: expected a share between 0 and 1")
        if not 0 <= self.mask_share <= 1:
            raise UserError(f"{option('mask_share', self.mask_share)}: expected a share from 0 to 1")
        if min(self.mask_share, self.random_share) < 0 or self.mask_share + self.random_share > 1:
            raise UserError(
                f"masking shares {self.mask_share} and {self.random_share}: expected two shares that sum to at most 1"
            )

    @property
    def identity(self) -> str:
        """What a resumed run must share. It is hashed: without `repeats` the string is that of the first version, whose
        fields were called `mask` and `random`."""
        repeats = ", repeats=True" if self.repeats else ""
        return (
            f"Masking(rate={self.rate!r}, mask={self.mask_share!r}, random={self.random_share!r}, "
            f"whole_word={self.whole_word!r}, end_rate={self.end_rate!r}, steps={self.steps!r}{repeats})"
        )

    def rate_at(self, step: int) -> float:
        """The rate of a step, from 0; after `steps` it is `end_rate`."""
        if self.end_rate is None:
            return self.rate
        return self.rate + (self.end_rate - self.rate) * min(1.0, step / max(1, self.steps))

    def between(self, first: int, end: int) -> Masking:
        """The masking of the steps from `first` to `end - 1`, counted from 0 again."""
        if self.end_rate is None:
            return self
        return dataclasses.replace(self, rate=self.rate_at(first), end_rate=self.rate_at(end), steps=end - first)


class Masker:
    """Chooses the tokens to predict and hides them."""

    def __init__(self, masking: Masking, tokenizer: Tokenizer) -> None:
        if tokenizer.mask_id == ABSENT:
            raise UserError(f"the vocabulary has no token for masks; {option('objective', 'causal')} needs none")
        self.masking = masking
        self.mask_id = tokenizer.mask_id
        self._never_chosen = np.zeros(tokenizer.vocab_size, dtype=bool)
        self._never_chosen[[id for id in tokenizer.special_ids if id != tokenizer.unk_id]] = True
        self._continuations = tokenizer.continuations()
        ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
        ordinary[list(tokenizer.special_ids)] = False
        self._replacements = np.flatnonzero(ordinary)

    def __call__(
        self, input_ids: np.ndarray, lengths: np.ndarray, keys: np.ndarray, step: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask a packed batch: ids `[T]`, lengths `[N]`, and a uint64 key for each sequence `[N]`; step sets the rate.

        Each token (with `whole_word`: each word; with `repeats`: each token or word with its like in the sequence) is
        chosen with probability `rate`, on its own; what stands in its place is drawn for each token, and with `repeats`
        for all of its places. The draws depend on the sequence's key and the position in it alone.
        Returns the ids to read `[T]`, the index of the tokens to predict `[M]`, ascending, and their true ids `[M]`.
        """
        begin = np.repeat(np.cumsum(lengths) - lengths, lengths)
        positions = np.arange(len(input_ids)) - begin
        token_keys = np.repeat(keys, lengths)
        chosen_by, shown_by = positions, positions
        if self.masking.repeats:
            shown_by = _first_places(input_ids, begin) - begin
            chosen_by = shown_by
        if self.masking.whole_word:
            chosen_by = chosen_by[self._word_starts(input_ids, positions)]
        drawn = uniforms(token_keys, chosen_by, CHOICE_STREAM) < self.masking.rate_at(step)
        mlm_index = np.flatnonzero(drawn & ~self._never_chosen[input_ids])
        labels = input_ids[mlm_index]
        masked = input_ids.copy()
        masked[mlm_index] = self._shown(labels, token_keys[mlm_index], shown_by[mlm_index])
        return masked, mlm_index, labels

    def _word_starts(self, input_ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The index of the first piece of each token's word, int64 `[T]`: a word's pieces share its draw."""
        after_special = self._never_chosen[np.roll(input_ids, 1)]
        starts = ~self._continuations[input_ids] | (positions == 0) | after_special
        return np.maximum.accumulate(np.where(starts, np.arange(len(input_ids)), 0))

    def _shown(self, labels: np.ndarray, keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The ids that the model reads in place of the labels `[M]`: `[MASK]`, a random token or the token itself."""
        place = uniforms(keys, positions, PLACE_STREAM)
        drawn = uniforms(keys, positions, REPLACEMENT_STREAM)
        replacements = self._replacements[(drawn * len(self._replacements)).astype(np.int64)]
        mask_share, random_share = self.masking.mask_share, self.masking.random_share
        shown = np.where(place < mask_share, self.mask_id, labels)
        return np.where((place >= mask_share) & (place < mask_share + random_share), replacements, shown)


def _first_places(input_ids: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """The index at which each token's id stands for the first time in its sequence, int64 `[T]`; begin: the index at
    which the sequence begins `[T]`."""
    in_sequence = begin * (int(input_ids.max(initial=0)) + 1) + input_ids
    _, first, like = np.unique(in_sequence, return_index=True, return_inverse=True)
    return first[like]


@dataclass(frozen=True)
class MaskedExamples:
    """One segment or two, some of whose tokens are hidden, with `next_sentence_label` where the pairing has it."""

    pairing: Pairing
    masker: Masker
    tokenizer: Tokenizer

    @property
    def options(self) -> SpanOptions:
        return self.pairing.options

    @property
    def identity(self) -> list[str]:
        return [repr(self.pairing), self.masker.masking.identity]

    def lay_out(self, chunk: Chunk) -> Chunk:
        return self.pairing.lay_out(chunk, self.tokenizer.sep_id)

    def spans(self, chunk: Chunk, rng: np.random.Generator) -> Spans:
        return self.pairing.spans(chunk, rng)

    def lengths(self, spans: Spans) -> np.ndarray:
        return masked_lengths(spans)

    def batch(self, tokens: np.ndarray, spans: Spans, keys: np.ndarray, step: int) -> PackedBatch:
        """Targets `mlm_index` and `mlm_labels` `[M]`, with pairs `next_sentence_label` `[N]` (0 = B follows A)."""
        input_ids, token_type_ids, lengths = build_inputs(tokens, spans, self.tokenizer)
        masked, mlm_index, mlm_labels = self.masker(input_ids, lengths, keys, step)
        targets = {"mlm_index": mlm_index, "mlm_labels": mlm_labels}
        if self.pairing.next_sentence:
            targets["next_sentence_label"] = spans.next_sentence_label
        return pack(masked, token_type_ids, lengths, targets)


@dataclass(frozen=True)
class ReplacedExamples(MaskedExamples):
    """As `MaskedExamples`, with the text's own tokens as a target: every hidden token is read by a generator as a mask,
    and by the model as what the generator puts there."""

    def batch(self, tokens: np.ndarray, spans: Spans, keys: np.ndarray, step: int) -> PackedBatch:
        """Target `original_ids` `[T]` besides those of `MaskedExamples`."""
        batch = super().batch(tokens, spans, keys, step)
        original = batch.input_ids.index_copy(0, batch.targets["mlm_index"], batch.targets["mlm_labels"])
        batch.targets["original_ids"] = original
        return batch


@dataclass(frozen=True)
class TaughtExamples(MaskedExamples):
    """As `MaskedExamples`, with the lengths of the sequences as a target, by which losses on all tokens are counted."""

    def batch(self, tokens: np.ndarray, spans: Spans, keys: np.ndarray, step: int) -> PackedBatch:
        """Target `sequence_lengths` `[N]` besides those of `MaskedExamples`."""
        batch = super().batch(tokens, spans, keys, step)
        batch.targets["sequence_lengths"] = batch.lengths
        return batch


def masked_lengths(spans: Spans) -> np.ndarray:
    """Tokens of each example, int64 `[N]`, with `[CLS]` and `[SEP]`."""
    return spans.lengths + np.where(spans.b_lengths > 0, PAIR_SPECIAL_TOKENS, SINGLE_SPECIAL_TOKENS)


def build_inputs(tokens: np.ndarray, spans: Spans, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens of the examples with special tokens around them: `[CLS] A [SEP] B [SEP]`, end to end.

    The template is `Tokenizer.with_special_tokens`, written here for all examples at once: one by one they would take
    the longer part of a step's preparation.
    Returns input_ids int64 `[T]`, token_type_ids int64 `[T]` (0 up to the first `[SEP]`, then 1), lengths int64 `[N]`.
    """
    lengths, a, b = masked_lengths(spans), spans.a_lengths, spans.b_lengths
    begin = np.cumsum(lengths) - lengths
    input_ids = np.full(int(lengths.sum()), tokenizer.sep_id, dtype=np.int64)
    token_type_ids = np.zeros(len(input_ids), dtype=np.int64)
    input_ids[begin] = tokenizer.cls_id
    for start, length, offset in ((spans.a_start, a, begin + 1), (spans.b_start, b, begin + a + 2)):
        input_ids[ranges(offset, length)] = tokens[ranges(start, length)]
    token_type_ids[ranges(begin + a + 2, np.where(b > 0, b + 1, 0))] = 1
    return input_ids, token_type_ids, lengths
