"""The registry of pretraining: what can be learnt from a token store. A new objective is a new file and a line here.

An entry names an `Objective`, which knows the head and the losses, and the maker of its examples, which knows how
documents become batches with the objective's targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bothways.data.masking import MaskedExamples, Masker, Masking, ReplacedExamples, TaughtExamples
from bothways.data.next_tokens import NextTokens
from bothways.data.sentence_pairs import FullSentences, FullSentencesAcross, Pairing, SentenceOrder, SentencePairs
from bothways.data.spans import ExampleMaker, SpanOptions
from bothways.errors import UserError, closest, option
from bothways.tasks.base import Objective
from bothways.tasks.pretraining import BertObjective, MaskedLMObjective, NextTokenObjective
from bothways.tasks.replaced_tokens import ReplacedTokenObjective
from bothways.text.tokenizer import Tokenizer

ELECTRA_LR = 5e-4  # of ELECTRA-small (Clark et al. 2020, table 6); at 2e-3 a tiny model learnt nothing that lasts
# Options of pretraining that shape examples with pairs of segments, or with masks, alone.
OF_PAIRS = ("short",)
OF_MASKS = ("mask_rate", "mask_rate_end", "mask_share", "whole_word_masking", "mask_repeats")

MakeExamples = Callable[[SpanOptions, Masking, Tokenizer], ExampleMaker]


@dataclass(frozen=True)
class Pretraining:
    """What a run of pretraining learns, and from what.

    is_decoder: whether the model reads from left to right. next_command: what to type after training, {mask}: the
    vocabulary's token for masks. family: of a new model, where the user names none. max_lr: the highest learning rate
    by default. taught: the examples where a teacher helps (`tasks.distillation`); None where it cannot. without: the
    options of pretraining that its examples have no use for.
    """

    objective: Objective
    make_examples: MakeExamples
    is_decoder: bool = False
    next_command: str = 'fill {model} "a {mask} in a text"'
    family: str = "bert"
    max_lr: float = float("inf")
    taught: MakeExamples | None = None
    without: tuple[str, ...] = ()


def masked(pairing: Callable[[SpanOptions], Pairing], examples: type[MaskedExamples] = MaskedExamples) -> MakeExamples:
    """Examples with masks, of the segments that the pairing makes of documents. examples: their kind."""

    def make(options: SpanOptions, masking: Masking, tokenizer: Tokenizer) -> ExampleMaker:
        return examples(pairing(options), Masker(masking, tokenizer), tokenizer)

    return make


def replaced(options: SpanOptions, masking: Masking, tokenizer: Tokenizer) -> ExampleMaker:
    """Examples whose hidden tokens are all masks, and the tokens that were hidden (Clark et al. 2020, section 2)."""
    masks_only = replace(masking, mask_share=1.0, random_share=0.0)
    return ReplacedExamples(FullSentences(options), Masker(masks_only, tokenizer), tokenizer)


def next_tokens(options: SpanOptions, masking: Masking, tokenizer: Tokenizer) -> ExampleMaker:
    """Examples of which each token is to say the next; nothing is masked."""
    return NextTokens(options, tokenizer)


OBJECTIVES: dict[str, Pretraining] = {
    "bert": Pretraining(BertObjective(), masked(SentencePairs), taught=masked(SentencePairs, TaughtExamples)),
    "order": Pretraining(BertObjective("sop"), masked(SentenceOrder), taught=masked(SentenceOrder, TaughtExamples)),
    "mlm": Pretraining(
        MaskedLMObjective(), masked(FullSentences), taught=masked(FullSentences, TaughtExamples), without=OF_PAIRS
    ),
    "roberta": Pretraining(
        MaskedLMObjective(),
        masked(FullSentencesAcross),
        taught=masked(FullSentencesAcross, TaughtExamples),
        without=OF_PAIRS,
    ),
    "electra": Pretraining(
        ReplacedTokenObjective(),
        replaced,
        next_command='explain {model} "a text of yours"',
        family="electra",
        max_lr=ELECTRA_LR,
        without=(*OF_PAIRS, "mask_share"),
    ),
    "causal": Pretraining(
        NextTokenObjective(),
        next_tokens,
        is_decoder=True,
        next_command='generate {model} "the beginning of a text"',
        without=(*OF_PAIRS, *OF_MASKS),
    ),
}


def find_pretraining(name: str) -> Pretraining:
    """The entry of this name. Raises UserError for a name that the registry does not have."""
    if name not in OBJECTIVES:
        raise UserError(f"{option('objective', name)}{closest(name, OBJECTIVES)}: accepted: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
