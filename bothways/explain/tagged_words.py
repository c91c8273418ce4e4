"""The words of a text that a tagger decides, as its task cuts them, and the tokens that decide them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bothways.tasks.tag import TagTask
from bothways.tasks.tag_windows import first_pieces
from bothways.text.tokenizer import Pieces

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel


def tagged_words(
    model: LoadedModel, texts: Sequence[str], pieces: Sequence[Pieces]
) -> tuple[list[int], list[str]] | None:
    """The first token of each word with a piece, and the words; None for a model without the task `tag`.

    texts: one, or two of a pair; pieces: of each. Tokens count those of the whole
    sequence, as `[CLS] a [SEP] b [SEP]`.
    """
    metadata, template = model.checkpoint.metadata, model.tokenizer.template
    if metadata.get("task") != TagTask.name or not metadata.get("labels"):
        return None
    task, begin = TagTask.from_json(metadata), len(template.prefix)
    tokens: list[int] = []
    words: list[str] = []
    for text, of_text in zip(texts, pieces, strict=True):
        characters = task.words_of_text(text)
        for (start, end), first in zip(characters, first_pieces(characters, of_text).tolist(), strict=True):
            if first >= 0:
                tokens.append(begin + first)
                words.append(text[start:end])
        begin += len(of_text.input_ids) + len(template.middle)
    return tokens, words
