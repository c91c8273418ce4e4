"""The families of models, one file each: config → assembly, heads, table of names. A new one is a file and a line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bothways.errors import UserError, closest
from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.families.albert import ALBERT
from bothways.model.families.base import Family
from bothways.model.families.bert import BERT
from bothways.model.families.distilbert import DISTILBERT
from bothways.model.families.electra import ELECTRA
from bothways.model.families.gpt2 import GPT2
from bothways.model.families.modernbert import MODERNBERT
from bothways.model.families.mpnet import MPNET
from bothways.model.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from bothways.model.heads import Head, HeadKind
from bothways.model.pretraining_heads import CausalLMHead, DiscriminatorHead, MaskedLMHead, PretrainingHead
from bothways.model.task_heads import ChoiceHead, EmbeddingHead, EncoderHead, SequenceHead, SpanHead, TokenHead

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, ALBERT, MPNET, MODERNBERT, GPT2)
}

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


def find_family(name: str) -> Family:
    """Raises UserError for a family that is not here, naming those that are."""
    if name not in FAMILIES:
        raise UserError(f"family {name!r} is not known{closest(name, FAMILIES)}; accepted: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def read_config(values: Mapping[str, Any], path: str | Path = "config.json") -> EncoderConfig:
    """A Hugging Face `config.json` as the hyperparameters of its family. Raises UserError for a family that is not
    here, for a key that is not read and changes what the model computes, and for values that cannot be."""
    name = values.get("model_type", "bert")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(f"{path} has model_type {str(name)[:60]!a}; accepted: {', '.join(FAMILIES)}")
    return FAMILIES[name].config.from_dict(values, path)


def build_encoder(config: EncoderConfig) -> Encoder:
    """An encoder of this shape, with torch's random weights."""
    return FAMILIES[config.model_type].encoder(config)


def build_head(encoder: Encoder, kind: HeadKind, num_labels: int = 0) -> Head:
    """A head of this kind as the encoder's family has it, with torch's random weights; num_labels: C, of heads that
    need it. Raises UserError where the family has none."""
    family = FAMILIES[encoder.config.model_type]
    if kind not in family.heads:
        raise UserError(f"{family.title} has no {kind} head; it has {', '.join(family.heads)}")
    form = family.heads[kind]
    head = form.build(encoder, num_labels)
    head.architecture = form.architecture
    return head


def head_builder(kind: HeadKind, num_labels: int = 0) -> Callable[[Encoder], Head]:
    """Builds a head of this kind on whatever encoder it is given: `build_head`."""
    return functools.partial(build_head, kind=kind, num_labels=num_labels)
