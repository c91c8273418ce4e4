"""What is in a store and in a batch, in figures and in words: for people, before and during a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bothways.batch import PackedBatch
from bothways.data.plan import PretrainingPlan
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class EpochEstimate:
    """Tokens that the model reads in one pass over the training split, and examples; estimates."""

    tokens: int
    examples: int


def estimate_epoch(plan: PretrainingPlan) -> EpochEstimate:
    """The size of one pass over the split, scaled up from its first block.

    Tokens count as the model reads them: with `[CLS]` and `[SEP]`, and with what an objective repeats.
    """
    block = plan.block(0, 0)
    share = plan.tokens / len(block.tokens)
    return EpochEstimate(round(int(block.lengths.sum()) * share), round(len(block.lengths) * share))


def batch_in_words(batch: PackedBatch, tokenizer: Tokenizer) -> Iterator[str]:
    """A line for each sequence: the tokens the model reads, each masked token as `{read→true}`, and the pair's label.

    For next tokens, where every token but the last one is read in turn, the last one stands behind an arrow.
    """
    masks = [batch.targets[name].tolist() for name in ("mlm_index", "mlm_labels") if name in batch.targets]
    labels: dict[int, int] = dict(zip(*masks, strict=True)) if masks else {}
    following = batch.targets.get("next_tokens")
    pairs = batch.targets.get("next_sentence_label")
    start = 0
    for number, length in enumerate(batch.lengths.tolist()):
        ids = batch.input_ids[start : start + length].tolist()
        tokens = [tokenizer.token(index) for index in ids]
        for position in range(length):
            if start + position in labels:
                tokens[position] = f"{{{tokens[position]}→{tokenizer.token(labels[start + position])}}}"
        end = "" if pairs is None else f"  (next_sentence_label {int(pairs[number])})"
        if following is not None:
            end = f" → {tokenizer.token(int(following[start + length - 1]))}"
        yield f"{number + 1}. [{length} tokens] {' '.join(tokens)}{end}"
        start += length
