"""What a pretraining starts from: a new model of a size, or one that is there, with the objective's head."""

from __future__ import annotations

from typing import Any

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model
from bothways.checkpoint.kept_layers import keep_layers, parse_layers
from bothways.data.store import TokenStore
from bothways.errors import UserError, option
from bothways.model.config import EncoderConfig
from bothways.model.families import find_family
from bothways.tasks.base import Objective
from bothways.tasks.objectives import find_pretraining
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import phases_of


def _new_config(store: TokenStore, options: PretrainOptions) -> EncoderConfig:
    """The hyperparameters of a new model of the family and size that are asked for."""
    entry = find_pretraining(options.objective)
    family = find_family(options.family or entry.family)
    chosen: dict[str, Any] = {
        "vocab_size": store.vocab_size,
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.dropout,
        "max_position_embeddings": options.max_position_embeddings,
        "pad_token_id": max(store.tokenizer().pad_id, 0),
    }
    if options.positions != "learned":
        if family.name != "bert":
            raise UserError(f"{option('positions', options.positions)}: {family.title} has its own")
        chosen["positions"] = options.positions
    if options.hidden_act is not None:
        chosen["hidden_act"] = options.hidden_act
    if entry.is_decoder:
        chosen["is_decoder"] = True
    return family.config.from_size(options.size, **chosen)


def starting_point(store: TokenStore, objective: Objective, options: PretrainOptions) -> Checkpoint:
    """A new model of `options.size`, or `options.model`, with the objective's head.

    Raises UserError for a model of another vocabulary, for one that reads in the other direction, and for one that
    reads fewer tokens than the run's sequences have.
    """
    checkpoint = _new_or_given(store, objective, options)
    longest = max(phase.sequence_length for phase in phases_of(options))
    if longest > checkpoint.config.max_sequence_length:
        raise UserError(
            f"{option('sequence_length', longest)} is above what the model "
            f"reads, {checkpoint.config.max_sequence_length} tokens"
        )
    return checkpoint


def _new_or_given(store: TokenStore, objective: Objective, options: PretrainOptions) -> Checkpoint:
    causal = find_pretraining(options.objective).is_decoder
    if options.model is None:
        if options.keep_layers is not None:
            none = f"are of {option('model')}, and none is given"
            raise UserError(f"{option('keep_layers', options.keep_layers)}: {none}")
        config = _new_config(store, options)
        return Checkpoint(new_model(config, objective.head, options.seed), store.tokenizer())
    checkpoint = load_checkpoint(options.model, objective.head, dropout=options.dropout, seed=options.seed)
    if checkpoint.tokenizer.fingerprint != store.tokenizer_fingerprint:
        raise UserError(
            f"{store.directory} was prepared with the vocabulary {store.tokenizer_fingerprint}, "
            f"{options.model} has {checkpoint.tokenizer.fingerprint}; prepare the text with "
            f"{option('tokenizer', options.model)}"
        )
    if checkpoint.config.is_decoder != causal:
        reads = "from left to right" if checkpoint.config.is_decoder else "both ways"
        raise UserError(
            f"{options.model} reads {reads} (is_decoder), which {option('objective', options.objective)} does not fit"
        )
    if options.keep_layers is not None:
        kept = parse_layers(options.keep_layers, len(checkpoint.model.encoder.order))
        return keep_layers(checkpoint, kept, objective.head)
    return checkpoint
