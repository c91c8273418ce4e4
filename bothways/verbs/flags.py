"""A verb's options from a recipe (TOML) and from flags; flags win. `--help` is made of docstrings.

A verb's options are a dataclass: its fields are the flags, its defaults the defaults, and what its docstring says after
`name: ` of a field is the field's help. So an edit of a docstring edits `--help`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from bothways.errors import UserError
from bothways.verbs.command_line import asks_for_help, read_words, require_all
from bothways.verbs.help import Page, print_help
from bothways.verbs.options import options_of
from bothways.verbs.recipes import read_recipe, split_recipe

_Options = TypeVar("_Options")


def parse(
    verb: str,
    options: type[_Options],
    arguments: Sequence[str],
    description: str,
    subject: str = "",
    table: str | None = None,
) -> _Options:
    """Read `--recipe` and the flags into the verb's dataclass.

    arguments: of the command line, behind the verb. description: the help's first line, with an example. subject: what
    stands behind the verb in the help (`finetune classify`). table: of the recipe, where it is another verb's.

    Raises UserError for flags the verb does not know, and for a recipe that is missing, malformed, or has a table, key
    or value that no verb knows.
    """
    shown = f"{verb} {subject}".strip()
    known = options_of(options)
    recipe, rest = split_recipe(arguments)
    if asks_for_help(rest):
        print_help(Page(shown, description, table or verb, known, help_texts(options)))
        raise SystemExit(0)
    try:
        given = read_words(known, rest, getattr(options, "least_words", None))
    except UserError as error:
        raise UserError(f"{shown}: {error}") from None
    values = _typed_over(read_recipe(recipe, table or verb, options) if recipe else {}, given)
    require_all(shown, known, values)
    return options(**values)


# Options that say the same in several ways, of which one is given.
ALTERNATIVES = (frozenset({"steps", "hours", "minutes"}),)


def _typed_over(recipe: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's options and those that were typed, which win, also where they say the same in another way."""
    replaced = frozenset[str]().union(*(group for group in ALTERNATIVES if group & typed.keys()))
    return {**{name: value for name, value in recipe.items() if name not in replaced}, **typed}


# What options mean that many verbs have, where a docstring does not say it.
COMMON = {
    "answers_column": "column of the answers",
    "batch_size": "examples in a step",
    "calibrate": "a table or a .txt of texts, on which int8 is compared with float32 before it is used",
    "characters": "of text to read",
    "checkpoint_every": "steps between two checkpoints",
    "choices_column": "column of the list of choices",
    "clip": "largest gradient norm",
    "context_column": "column of the text that may hold the answer",
    "device": "auto is a GPU where there is one",
    "dropout": "share of activations and attention weights dropped in training",
    "epochs": "passes over the training rows",
    "evaluate_every": "steps between two evaluations; by default a tenth of the run",
    "eval": "labelled rows to measure on",
    "input": "a file to read, also behind a URL (s3://…)",
    "json": "print JSON, one object a line",
    "label_column": "column of the label",
    "labels_column": "column of the list of labels",
    "log_every": "steps between two lines in metrics.jsonl",
    "lr": "peak learning rate",
    "mask_rate": "share of the tokens that are masked",
    "max_position_embeddings": "rows of the position table, the longest sequence the model can ever read",
    "messages_column": "column of the list of messages",
    "micro_batch_tokens": "tokens in one forward pass, which is what takes memory; a step adds up several",
    "minutes": "of pretraining",
    "model": "a run, a Hugging Face directory, a shipped model, a hub id, or a URL (s3://…)",
    "out": "the run's directory, also behind a URL (s3://…); the same command again goes on with it",
    "optimizer": "what makes a step of the gradients",
    "overwrite": "begin anew where --out holds something that Bothways wrote; without it that is refused",
    "pair_column": "column of the second text",
    "path": "a file or a folder",
    "precision": "auto is bfloat16 where the hardware multiplies it",
    "query": "what the others are compared with",
    "question": "what is asked",
    "prompt_column": "column of what is said to the model",
    "question_column": "column of the question",
    "response_column": "column of the reply",
    "score_column": "column of the score",
    "seed": "everything random follows from it",
    "sequence_length": "tokens of a text, at most",
    "size": "of the model",
    "spans_column": "column of the list of entities",
    "start_column": "column of the character at which the answer begins",
    "steps": "optimizer steps",
    "store": "a token store, as `bothways prepare` makes it, also behind a URL (s3://…)",
    "text_column": "column of the text",
    "tokens_per_step": "tokens in a step, at most",
    "top_k": "how many to show",
    "train": "labelled rows to train on; files may be behind URLs (s3://…)",
    "warmup": "share of the steps in which the learning rate climbs",
    "vocab_size": "pieces of the vocabulary",
    "weight_decay": "of matrices; biases and layer norms have none",
    "what": "what is compared",
    "whole_word_masking": "mask all pieces of a word together",
    "words_column": "column of the list of words",
}


def help_texts(options: type) -> dict[str, str]:
    """The help text of each field of a dataclass, by the field's name.

    It is in the docstring of the class, or of a base: `name: text`, up to the next field's `name: ` or the end of the
    paragraph. For a field of which no docstring speaks it is in `COMMON`.
    """
    names = [field.name for field in dataclasses.fields(options)]
    mark = rf"(?<!\w)(?:{'|'.join(map(re.escape, names))}): "
    texts = {name: COMMON[name] for name in names if name in COMMON}
    for kind in reversed(options.__mro__):
        document = kind.__doc__ or ""
        if not dataclasses.is_dataclass(kind) or document.startswith(f"{kind.__name__}("):  # dataclass's own docstring
            continue
        for paragraph in re.split(r"\n\s*\n", document):
            line = " ".join(paragraph.split())  # a name may stand at the end of a line of the docstring
            for name, text in re.findall(rf"({mark})(.*?)(?={mark}|\Z)", line):
                texts[name.removesuffix(": ")] = " ".join(text.split()).rstrip(" .,;").removesuffix("; or")
    return texts


def joined_options(name: str, *kinds: type[Any]) -> type[Any]:
    """A dataclass with the fields of all of these: what a verb can be told and what a task can. Fields of the last come
    first; a field that several have is the first's."""
    return dataclasses.make_dataclass(name, [], bases=kinds, frozen=True, kw_only=True)
