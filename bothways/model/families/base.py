"""What a family of models is: its config, its assembly of parts, its heads, and the names of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, HeadKind


@dataclass(frozen=True)
class Rename:
    """One line of a table of names: a module, whose weight and bias follow, or a parameter.

    ours, theirs: names; `*` is a layer's number. Several names in `theirs` are rows of one matrix, in this order.
    tied_to: our name of the tensor that this one is as well. Such a tensor is neither written nor read: `theirs` is
    where other files hold it a second time. transposed: whether their matrices are `[in, out]`.
    """

    ours: str
    theirs: tuple[str, ...]
    tied_to: str | None = None
    transposed: bool = False


TOKEN_TABLE = "encoder.embeddings.token.weight"


def rename(ours: str, *theirs: str, transposed: bool = False) -> Rename:
    """A line of the table."""
    return Rename(ours, theirs, transposed=transposed)


def tied_decoder(theirs: str) -> Rename:
    """The line of a decoder that is the token table: `theirs` is its weight's name."""
    return Rename("head.lm.decoder.weight", (theirs,), tied_to=TOKEN_TABLE)


@dataclass(frozen=True)
class HeadForm:
    """A head as a family has it.

    architecture: the Hugging Face class. build: (encoder, number of labels) → the head. renames: of its tensors.
    """

    architecture: str
    build: Callable[[Encoder, int], Head]
    renames: tuple[Rename, ...] = ()


@dataclass(frozen=True)
class Family:
    """A family of models.

    name: `model_type` in config.json. title: as people write it. config: the class of its hyperparameters. encoder:
    config → encoder with torch's random weights. prefix: of the encoder's tensors in a file, which the file of a bare
    encoder lacks. renames: of the encoder's tensors; the first line that applies holds. heads: by kind, in the order in
    which a file that names no class is tried. spellings: other names in files, (regular expression, what it stands
    for), put right before `renames` is read. tokenizer: the class that is written into tokenizer_config.json for a
    vocabulary of our own.
    """

    name: str
    title: str
    config: type[EncoderConfig]
    encoder: Callable[[Any], Encoder]
    prefix: str
    renames: tuple[Rename, ...]
    heads: Mapping[HeadKind, HeadForm]
    spellings: tuple[tuple[str, str], ...] = ()

    def form_of(self, architecture: str) -> HeadForm | None:
        """The head of a Hugging Face class."""
        return next((form for form in self.heads.values() if form.architecture == architecture), None)
