"""Special tokens by their role, and the template in which a vocabulary puts them around texts.

A role is found by what the directory states, else by the names that published vocabularies have for it. So nothing asks
whether the token at the beginning is called `[CLS]` or `<s>`.

Shapes: T pieces of a sequence.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer as BackendTokenizer

from bothways.errors import UserError

Role = Literal["pad", "unk", "cls", "sep", "mask"]
# Each role's names, BERT's first. GPT-2 has one special token for all, and none for masks.
USUAL_NAMES: dict[Role, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>", "<|endoftext|>"),
    "unk": ("[UNK]", "<unk>", "<|endoftext|>"),
    "cls": ("[CLS]", "<s>", "<|endoftext|>"),
    "sep": ("[SEP]", "</s>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
}
# What `transformers` calls a role, and what stands for it where a vocabulary has none of the usual names.
STATED_NAMES: dict[Role, tuple[str, ...]] = {
    "pad": ("pad_token",),
    "unk": ("unk_token",),
    "cls": ("cls_token", "bos_token"),
    "sep": ("sep_token", "eos_token"),
    "mask": ("mask_token",),
}
ABSENT = -1  # the id of a role that a vocabulary does not have; no token has it


@dataclass(frozen=True)
class Template:
    """The special tokens of a sequence, ids: in front, between two segments, behind. typed: whether token_type_ids
    number the segments, as BERT's do; else all are 0."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    typed: bool


def find_roles(vocabulary: Mapping[str, int], stated: Mapping[str, str]) -> dict[Role, str]:
    """The token of each role that a vocabulary has. stated: what a directory's files say, by `transformers`' names."""
    roles: dict[Role, str] = {}
    for role, usual in USUAL_NAMES.items():
        first, *others = ([stated[name]] if name in stated else [] for name in STATED_NAMES[role])
        candidates = (*first, *usual, *(token for named in others for token in named))
        present = [token for token in candidates if token in vocabulary]
        if present:
            roles[role] = present[0]
    return roles


def find_template(backend: BackendTokenizer, cls_id: int, sep_id: int) -> Template:
    """The template that a backend's post-processor has, found by what it makes of one text and of two; BERT's where it
    has none and begins and ends with different tokens; else only something between two texts. Raises UserError for a
    tokenizer that makes nothing of a text."""
    with damage_as_user_errors("the tokenizer's template cannot be used"):
        single, pair = backend.encode("a"), backend.encode("a", "a")
    ids, special = _ids(single)
    if False not in special:
        raise UserError("the tokenizer makes no pieces of the letter a: it is damaged, or not one for text")
    if True not in special:
        if cls_id != sep_id:
            return Template((cls_id,), (sep_id,), (sep_id,), True)
        return Template((), (sep_id,), (), False)
    first, last = special.index(False), len(special) - special[::-1].index(False)
    return Template(tuple(ids[:first]), _between(*_ids(pair)) or (sep_id,), tuple(ids[last:]), any(pair.type_ids))


def _between(ids: list[int], special: list[bool]) -> tuple[int, ...]:
    """The special tokens that stand between two texts; none where there is nothing between them."""
    texts = [place for place, is_special in enumerate(special) if not is_special]
    gaps = [(before, after) for before, after in itertools.pairwise(texts) if after - before > 1]
    return tuple(ids[gaps[0][0] + 1 : gaps[0][1]]) if gaps else ()


@contextlib.contextmanager
def damage_as_user_errors(said: str) -> Iterator[None]:
    """Turn what `tokenizers` raises at a damaged file into a UserError: bare Exceptions, and panics of its Rust code,
    which are no Exceptions."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{said}: {(str(error).splitlines() or ['damaged'])[0]}") from error


def _ids(encoding) -> tuple[list[int], list[bool]]:  # type: ignore[no-untyped-def]
    return encoding.ids, [sequence is None for sequence in encoding.sequence_ids]
